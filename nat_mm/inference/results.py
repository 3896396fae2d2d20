"""Provides the results of models as arrays, in COCO's format, and drawn over the image."""

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from mmengine.structures import BaseDataElement, InstanceData
from torch import zeros

from nat_mm.files import write_image
from nat_mm.inference.drawing import OPACITY, draw_sample
from nat_mm.inference.inputs import Frame

if TYPE_CHECKING:
    from nat_mm.inference.model import Model

SHOWN_CLASSES = 5
"""How many of a classifier's classes are described, the most likely ones."""


class Result(ABC):
    """What a model found in an image.

    Attributes:
        model: The model.
        frame: The image and where it comes from.
        sample: The toolbox's data sample, with tensors.
        score_threshold: Lowest score of the objects.
    """

    task: ClassVar[str]

    def __init__(
        self, model: 'Model', frame: Frame, sample: BaseDataElement, *, score_threshold: float
    ) -> None:
        self.model = model
        self.frame = frame
        self.sample = sample
        self.score_threshold = score_threshold

    @property
    def image(self) -> np.ndarray:
        """The image, [height, width, 3], uint8, BGR."""
        return self.frame.image

    def draw(self, *, opacity: float = OPACITY, with_labels: bool = True) -> np.ndarray:
        """Draws the result over the image, each class in its color of `Model.palette`.

        Args:
            opacity: Opacity of masks, segments and label maps, from 0 to 1.
            with_labels: Whether to write the names of the classes.

        Returns:
            [height, width, 3], uint8, RGB, as Pillow and matplotlib take it.

        Raises:
            UserError: The opacity is not from 0 to 1.
        """
        return draw_sample(
            self.image[..., ::-1],
            self.sample,
            classes=self.model.classes,
            palette=self.model.palette,
            score_threshold=self.score_threshold,
            opacity=opacity,
            with_labels=with_labels,
        )

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Returns the result as a dict for JSON."""

    def save(self, path: str | Path, *, opacity: float = OPACITY, with_labels: bool = True) -> None:
        """Draws the result and writes it to a file.

        Args:
            path: Image file such as ``out.jpg``; its folder is created if needed.
            opacity: See `draw`.
            with_labels: See `draw`.

        Raises:
            ValueError: No image format has this suffix, or the image is too large for it.
        """
        drawing = self.draw(opacity=opacity, with_labels=with_labels)
        write_image(Path(path), drawing[..., ::-1])

    def _describe_image(self) -> dict[str, Any]:
        height, width = self.image.shape[:2]
        return {**self.frame.describe(), 'height': height, 'width': width}


class DetectionResult(Result):
    """Objects whose score is at least `score_threshold`, and the segments of a panoptic model."""

    task = 'detection'

    def __repr__(self) -> str:
        found = ', '.join(
            f'{name} {score:.2f}'
            for name, score in zip(self.class_names[:3], self.scores, strict=False)
        )
        return f'{type(self).__name__}({len(self.labels)} objects{": " if found else ""}{found})'

    @cached_property
    def _instances(self) -> InstanceData:
        if 'pred_instances' not in self.sample:
            return InstanceData(bboxes=zeros(0, 4), scores=zeros(0), labels=zeros(0))
        found = self.sample.pred_instances
        return found[found.scores >= self.score_threshold].cpu()

    @property
    def boxes(self) -> np.ndarray:
        """[n, 4], float32: x1, y1, x2, y2 in pixels of the image."""
        return self._instances.bboxes.float().numpy()

    @property
    def scores(self) -> np.ndarray:
        """[n], float32, from 0 to 1."""
        return self._instances.scores.float().numpy()

    @property
    def labels(self) -> np.ndarray:
        """[n], int64: indices in `Model.classes`."""
        return self._instances.labels.long().numpy()  # CrowdDet's are floats

    @property
    def class_names(self) -> list[str]:
        """Names of the labels."""
        classes = self.model.classes
        return [classes[label] for label in self.labels]

    @property
    def masks(self) -> np.ndarray | None:
        """[n, height, width], bool; None if the model has no masks.

        For an image that was predicted in tiles, the full masks are assembled here; `describe` and
        `draw` do not need them.
        """
        if 'masks' not in self._instances:
            return None
        masks = self._instances.masks
        if isinstance(masks, list):
            height, width = self.image.shape[:2]
            whole = np.zeros((len(masks), height, width), bool)
            for number, crop in enumerate(masks):
                whole[number] = crop.in_image(height, width)
            return whole
        return masks.numpy()

    @cached_property
    def segments(self) -> np.ndarray | None:
        """[height, width], int: segment number of each pixel, 0 for none; None if not panoptic.

        The label of a segment is its number modulo mmdet's ``INSTANCE_OFFSET``, 1000.
        """
        if 'pred_panoptic_seg' not in self.sample:
            return None
        numbers = self.sample.pred_panoptic_seg.sem_seg[0].cpu().numpy()
        return np.where(numbers == len(self.model.classes), 0, numbers)

    def describe(self, *, with_masks: bool = True) -> dict[str, Any]:
        """Returns the result as a dict for JSON.

        Args:
            with_masks: Whether to encode masks.

        Returns:
            ``image``, ``height``, ``width`` and ``instances``, each with ``label``, ``class_name``,
            ``score``, ``bbox`` (x1, y1, x2, y2 in pixels) and, if the model has masks, ``mask``
            (COCO's RLE). For a panoptic model, also ``segments``, each with ``id`` (its number in
            `segments`), ``label``, ``class_name`` and ``area`` in pixels.
        """
        instances = self._described if with_masks else self._without_masks()
        result = {**self._describe_image(), 'instances': instances}
        if self.segments is not None:
            result['segments'] = self._describe_segments(self.segments)
        return result

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """Returns the objects in COCO's results format, for ``pycocotools.coco.COCO.loadRes``.

        Format: https://cocodataset.org/#format-results

        Args:
            image_id: The image's id in the annotation file.

        Returns:
            For each object, ``image_id``, ``category_id`` (the label plus 1), ``bbox`` (x, y,
            width, height in pixels), ``score`` and, if the model has masks, ``segmentation`` (RLE).
        """
        entries = []
        for instance in self._described:
            left, top, right, bottom = instance['bbox']
            entry = {
                'image_id': image_id,
                'category_id': instance['label'] + 1,
                'bbox': [left, top, right - left, bottom - top],
                'score': instance['score'],
            }
            if 'mask' in instance:
                entry['segmentation'] = instance['mask']
            entries.append(entry)
        return entries

    @cached_property
    def _described(self) -> list[dict[str, Any]]:
        instances = self._without_masks()
        for instance, code in zip(instances, self._encoded_masks(), strict=False):
            instance['mask'] = {'size': code['size'], 'counts': code['counts'].decode()}
        return instances

    def _without_masks(self) -> list[dict[str, Any]]:
        return [
            {
                'label': int(label),
                'class_name': name,
                'score': float(score),
                'bbox': [float(value) for value in box],
            }
            for label, name, score, box in zip(
                self.labels, self.class_names, self.scores, self.boxes, strict=True
            )
        ]

    def _encoded_masks(self) -> list[dict[str, Any]]:
        if 'masks' not in self._instances:
            return []
        if isinstance(self._instances.masks, list):
            return [crop.encode(*self.image.shape[:2]) for crop in self._instances.masks]
        from mmdet.structures.mask import encode_mask_results

        return encode_mask_results(self._instances.masks.numpy())

    def _describe_segments(self, segments: np.ndarray) -> list[dict[str, Any]]:
        from mmdet.evaluation import INSTANCE_OFFSET

        found, areas = np.unique(segments[segments != 0], return_counts=True)
        return [
            {
                'id': int(number),
                'label': int(number % INSTANCE_OFFSET),
                'class_name': self.model.classes[number % INSTANCE_OFFSET],
                'area': int(area),
            }
            for number, area in zip(found, areas, strict=True)
        ]


class SegmentationResult(Result):
    """A class for every pixel."""

    task = 'segmentation'

    def __repr__(self) -> str:
        found = ', '.join(
            f'{each["class_name"]} {each["share"]:.0%}' for each in self._shares()[:3]
        )
        return f'{type(self).__name__}({found})'

    @property
    def label_map(self) -> np.ndarray:
        """[height, width], uint8, or uint16 above 256 classes: indices in `Model.classes`."""
        labels = self.sample.pred_sem_seg.data[0].cpu().numpy()
        return labels.astype(self.model.label_dtype, copy=False)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in the image, most frequent first."""
        return [each['class_name'] for each in self._shares()]

    def describe(self) -> dict[str, Any]:
        """Returns the result as a dict for JSON.

        Returns:
            ``image``, ``height``, ``width`` and ``classes``, the classes in the image, most
            frequent first, each with ``label``, ``class_name`` and ``share`` of the pixels, 0 to 1.
        """
        return {**self._describe_image(), 'classes': self._shares()}

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """Returns the label map in COCO's stuff format, with one entry for each class that occurs.

        Args:
            image_id: The image's id in the annotation file.

        Returns:
            For each class, ``image_id``, ``category_id`` (the label plus 1) and ``segmentation``
            (RLE).
        """
        from pycocotools import mask

        entries = []
        for label in np.unique(self.label_map):
            code = mask.encode(np.asfortranarray(self.label_map == label, np.uint8))
            code['counts'] = code['counts'].decode()
            entry = {'image_id': image_id, 'category_id': int(label) + 1, 'segmentation': code}
            entries.append(entry)
        return entries

    def _shares(self) -> list[dict[str, Any]]:
        labels, counts = np.unique(self.label_map, return_counts=True)
        order = np.argsort(-counts, kind='stable')
        return [
            {
                'label': int(labels[index]),
                'class_name': self.model.classes[labels[index]],
                'share': float(counts[index] / counts.sum()),
            }
            for index in order
        ]


class ClassificationResult(Result):
    """The classes of an image, most likely first."""

    task = 'classification'

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.class_names[0]} {self.scores[0]:.2f})'

    @property
    def scores(self) -> np.ndarray:
        """[classes], float32, from 0 to 1, in descending order."""
        return self._sorted[0]

    @property
    def labels(self) -> np.ndarray:
        """[classes], int64, in the order of `scores`."""
        return self._sorted[1]

    @property
    def class_names(self) -> list[str]:
        """Names of the labels."""
        classes = self.model.classes
        return [classes[label] for label in self.labels]

    def describe(self) -> dict[str, Any]:
        """Returns the result as a dict for JSON.

        Returns:
            ``image``, ``height``, ``width`` and ``classes``, the five most likely ones, each with
            ``label``, ``class_name`` and ``score``.
        """
        likeliest = zip(self.labels, self.class_names, self.scores, strict=True)
        classes = [
            {'label': int(label), 'class_name': name, 'score': float(score)}
            for label, name, score in list(likeliest)[:SHOWN_CLASSES]
        ]
        return {**self._describe_image(), 'classes': classes}

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        scores, labels = self.sample.pred_score.float().cpu().sort(descending=True)
        return scores.numpy(), labels.numpy()


RESULT_TYPES: dict[str, type[Result]] = {
    'mmdet': DetectionResult,
    'mmseg': SegmentationResult,
    'mmpretrain': ClassificationResult,
}
"""Types of results by toolbox."""
