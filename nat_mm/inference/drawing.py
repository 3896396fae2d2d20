"""Draws predictions or ground truth over an image, each class in the same color everywhere.

mmdet's visualizer gives every mask a random shade, and mmdet's and mmseg's visualizers draw lines
and letters of a fixed size, which hide small images and vanish in large ones.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor

from nat_mm.errors import UserError
from nat_mm.inference.labels import Box, Labels
from nat_mm.inference.mask_crops import MaskCrop
from nat_mm.inference.palettes import Color, complete_palette

OPACITY = 0.5
"""Opacity of masks and label maps: 0 shows only the image, 1 hides it."""
SCORE_THRESHOLD = 0.3
"""Lowest score of the objects that results and drawings contain by default."""

_ROWS = 256
"""Number of image rows processed at once, which saves memory and half of the time."""
_SEARCHED_SIDE = 384
"""In pixels: label maps are downscaled to at most this size to find places for the names."""


@dataclass(frozen=True)
class _Region:
    """The largest connected part of a class in a label map."""

    label: int
    box: Box
    area: float
    center: tuple[float, float]


def classes_of_dataset(meta: Mapping[str, Any]) -> tuple[list[str], list[Color]]:
    """Returns names and colors of a dataset's classes.

    Args:
        meta: Its ``metainfo``; without ``classes``, they are named by number.
    """
    classes = list(meta.get('classes') or (f'class {label}' for label in range(256)))
    return classes, complete_palette(meta.get('palette'), len(classes))


def enlarge_sample(sample: BaseDataElement, factor: int) -> BaseDataElement:
    """Copies predictions and ground truth for an image that is enlarged by a factor.

    Letters have a minimum size, so small images are drawn on enlarged.
    """

    def repeat(maps: Tensor) -> Tensor:
        return maps.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)

    sample = sample.clone()
    for name in {'gt_instances', 'pred_instances'}.intersection(sample.keys()):
        instances = sample.get(name).clone()
        if 'bboxes' in instances:  # there are none in the ground truth of an image to predict
            instances.bboxes = instances.bboxes * factor
        masks = instances.get('masks')
        if isinstance(masks, Tensor):
            instances.masks = repeat(masks)
        elif masks is not None:  # mmdet's masks of ground truth
            instances.masks = masks.resize((masks.height * factor, masks.width * factor))
        setattr(sample, name, instances)
    for name in {'gt_sem_seg', 'pred_sem_seg'}.intersection(sample.keys()):
        setattr(sample, name, PixelData(data=repeat(sample.get(name).data)))
    if 'pred_panoptic_seg' in sample:
        sample.pred_panoptic_seg = PixelData(sem_seg=repeat(sample.pred_panoptic_seg.sem_seg))
    return sample


def check_opacity(opacity: float, name: str = 'opacity') -> None:
    """Checks that an opacity is from 0 to 1.

    Args:
        opacity: The opacity.
        name: What it is called in the message.

    Raises:
        UserError: It is not.
    """
    if not 0 <= opacity <= 1:
        raise UserError(f'{name} must be from 0 to 1, got {opacity:g}')


def draw_sample(
    image: np.ndarray,
    sample: BaseDataElement,
    *,
    classes: Sequence[str],
    palette: Sequence[Color],
    truth: bool = False,
    score_threshold: float = 0.0,
    opacity: float = OPACITY,
    with_labels: bool = True,
) -> np.ndarray:
    """Draws boxes, masks, segments, label maps or the class of an image over it.

    Args:
        image: [height, width, 3], uint8, RGB.
        sample: A data sample of mmdet, mmseg or mmpretrain, with maps as large as the image.
        classes: Names of the classes.
        palette: Their colors, see `complete_palette`.
        truth: Whether to draw the ground truth instead of the prediction.
        score_threshold: Lowest score of the objects that are drawn.
        opacity: Opacity of masks and label maps, from 0 to 1.
        with_labels: Whether to write the names of the classes.

    Returns:
        A new image of the same shape.

    Raises:
        UserError: The opacity is not from 0 to 1.
    """
    check_opacity(opacity)
    kind = 'gt' if truth else 'pred'
    painter = _Painter(image, classes, palette, opacity=opacity, with_labels=with_labels)
    objects, segments = sample.get(f'{kind}_instances'), sample.get(f'{kind}_panoptic_seg')
    if objects is not None and 'labels' not in objects:
        objects = None  # the ground truth of a pipeline that loads none
    if segments is not None:
        painter.draw_segments(_array(segments.sem_seg)[0], objects, score_threshold)
    elif objects is not None:
        painter.draw_objects(objects, score_threshold)
    label_map = sample.get(f'{kind}_sem_seg')
    if label_map is not None:
        painter.draw_label_map(_array(label_map.get('data', label_map.get('sem_seg')))[0])
    if f'{kind}_label' in sample:
        painter.draw_class(sample, kind)
    return painter.image


class _Painter:
    """Draws over a copy of an image; see `draw_sample`."""

    def __init__(
        self,
        image: np.ndarray,
        classes: Sequence[str],
        palette: Sequence[Color],
        *,
        opacity: float,
        with_labels: bool,
    ) -> None:
        self.image = np.array(image, order='C')
        self._classes, self._palette, self._opacity = classes, palette, opacity
        self._labels = Labels(self.image) if with_labels else None
        # 1 pixel up to 0.3 megapixels, 3 at 3 megapixels, 10 at 30.
        self._line_width = max(1, round(math.sqrt(image.shape[0] * image.shape[1]) / 550))

    def draw_objects(
        self, objects: BaseDataElement, score_threshold: float, *, with_masks: bool = True
    ) -> set[int]:
        """Draws masks, boxes, and names with scores, the highest score on top.

        Returns:
            The labels that were drawn.
        """
        # CrowdDet's are floats.
        labels, boxes = _array(objects.labels).astype(int).tolist(), _boxes(objects)
        masks = _masks(objects) if with_masks else None
        order, notes = list(range(len(labels))), [''] * len(labels)
        if 'scores' in objects:
            scores = _array(objects.scores.float())
            # Filtering the objects themselves would copy gigabytes of masks.
            order = [n for n in np.argsort(-scores).tolist() if scores[n] >= score_threshold]
            notes = [f'{score:.2f}' for score in scores]
        for number in reversed(order):
            color = self._palette[labels[number]]
            if masks is not None:
                self._draw_mask(_crop(masks[number]), color)
            left, top, right, bottom = boxes[number]
            if right > left and bottom > top:
                start, end = (round(left), round(top)), (round(right) - 1, round(bottom) - 1)
                cv2.rectangle(self.image, start, end, color, self._line_width)
        for number in order:
            label, box = labels[number], boxes[number]
            if masks is not None and box[2] <= box[0]:
                box = _crop(masks[number]).box  # models without a box branch
            self._write(self._classes[label], label, box, note=notes[number])
        return {labels[number] for number in order}

    def draw_segments(
        self, numbers: np.ndarray, objects: BaseDataElement | None, score_threshold: float
    ) -> None:
        """Draws outlined panoptic segments; the objects among them get boxes and scores."""
        from mmdet.evaluation import INSTANCE_OFFSET

        labels = numbers % INSTANCE_OFFSET
        self._blend(labels, void_is_black=False)
        edges = np.zeros(numbers.shape, bool)
        edges[:, 1:] |= numbers[:, 1:] != numbers[:, :-1]
        edges[1:] |= numbers[1:] != numbers[:-1]
        brush = np.ones((self._line_width, self._line_width), np.uint8)
        self.image[cv2.dilate(edges.astype(np.uint8), brush) > 0] = 255
        with_score: set[int] = set()
        if objects is not None:
            with_score = self.draw_objects(objects, score_threshold, with_masks=False)
        self._name_regions(labels, without=with_score)

    def draw_label_map(self, labels: np.ndarray) -> None:
        """Draws the class of every pixel; pixels without a class are darkened."""
        self._blend(labels, void_is_black=True)
        self._name_regions(labels)

    def draw_class(self, sample: BaseDataElement, kind: str) -> None:
        """Writes the classes of the image in its upper left corner."""
        for label in _array(sample.get(f'{kind}_label')).flatten().tolist():
            has_score = kind == 'pred' and 'pred_score' in sample
            note = f'{float(sample.pred_score[label]):.2f}' if has_score else ''
            self._write(self._classes[label], label, (0, 0, 0, 0), note=note)

    def _write(self, name: str, label: int, box: Box, **options: Any) -> None:
        if self._labels is not None:
            self._labels.write(name, self._palette[label], box, **options)

    def _draw_mask(self, crop: MaskCrop, color: Color) -> None:
        left, top, right, bottom = crop.box
        if right <= left:
            return
        part = self.image[top:bottom, left:right]
        self._mix(part, np.full_like(part, color), crop.mask)
        outlines, _ = cv2.findContours(
            crop.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(left, top)
        )
        cv2.drawContours(self.image, outlines, -1, color, self._line_width)

    def _blend(self, labels: np.ndarray, *, void_is_black: bool) -> None:
        """Blends in the colors of the classes; pixels without a class are void."""
        count = len(self._classes)
        colors = np.zeros((count + 1, 3), np.uint8)
        colors[:count] = self._palette[:count]
        for start in range(0, len(labels), _ROWS):
            image = self.image[start : start + _ROWS]
            # Negative labels become large ones.
            part = np.minimum(labels[start : start + _ROWS].astype(np.uint16), count)
            self._mix(image, colors.take(part, axis=0), part < count + void_is_black)

    def _mix(self, image: np.ndarray, colors: np.ndarray, where: np.ndarray) -> None:
        mixed = cv2.addWeighted(image, 1 - self._opacity, colors, self._opacity, 0)
        np.copyto(image, mixed, where=where[..., None])

    def _name_regions(self, labels: np.ndarray, *, without: Collection[int] = ()) -> None:
        """Writes the name of each class on its largest region, or next to it if it is small."""
        if self._labels is None:
            return
        for region in sorted(_regions(labels), key=lambda region: -region.area):
            if region.label >= len(self._classes) or region.label in without:
                continue
            width, height = self._labels.size(self._classes[region.label])
            if region.area < width * height / 4:
                continue
            box = region.box
            if region.area > width * height * 3:
                x, y = region.center
                box = (x, y, x, y)
            self._write(self._classes[region.label], region.label, box, center=True)


def _regions(labels: np.ndarray) -> Iterator[_Region]:
    """Finds the largest connected part of each class."""
    step = -(-max(labels.shape) // _SEARCHED_SIDE)
    small = labels[::step, ::step]
    for label in np.unique(small):
        x, y, end, bottom = MaskCrop.of(small == label).box
        of_label = (small[y:bottom, x:end] == label).astype(np.uint8)
        _, parts, statistics, _ = cv2.connectedComponentsWithStats(of_label)
        part = 1 + int(np.argmax(statistics[1:, cv2.CC_STAT_AREA]))
        left, top, width, height, area = statistics[part].tolist()
        cut = parts[top : top + height, left : left + width] == part
        left, top = left + x, top + y
        # Pad with zeros, because the border of the image is also one of the region.
        depth = cv2.distanceTransform(np.pad(cut, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
        box = (left * step, top * step, (left + width) * step, (top + height) * step)
        center = ((left + column + 0.5) * step, (top + row + 0.5) * step)
        yield _Region(int(label), box, area * step**2, center)


def _boxes(objects: BaseDataElement) -> np.ndarray:
    """Returns [n, 4], float; zeros if there are no boxes."""
    boxes = objects.get('bboxes')
    if boxes is None:
        return np.zeros((len(objects.labels), 4))
    # mmdet's datasets wrap boxes in its own class.
    boxes = np.nan_to_num(_array(getattr(boxes, 'tensor', boxes)).astype(float))
    return boxes.clip(-(2**15), 2**15)  # OpenCV's coordinates have 32 bits


def _masks(objects: BaseDataElement) -> np.ndarray | list[MaskCrop] | None:
    """Returns [n, height, width]; for large images, a list of crops; None without masks."""
    masks = objects.get('masks')
    if masks is None or isinstance(masks, list):
        return masks
    # mmdet's datasets have its own classes for polygons and bitmaps.
    return _array(masks.to_ndarray() if hasattr(masks, 'to_ndarray') else masks)


def _crop(mask: np.ndarray | MaskCrop) -> MaskCrop:
    return mask if isinstance(mask, MaskCrop) else MaskCrop.of(mask)


def _array(values: Any) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
