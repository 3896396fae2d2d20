"""Predicts large images tile by tile, as if they were predicted whole.

Each pixel of a label map comes from the tile in which it is farthest from an edge, at least half of
the overlap. Thus, a model whose receptive field reaches no farther produces the same label map as
for the whole image, and only the scores of one tile are in memory. mmseg's slide mode, in contrast,
keeps the scores of the whole image, and also averages those at the edges of tiles.

Objects that more than one tile can see are merged by sahi's greedy non-maximum merging.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from nat_mm.backbones.checks import SMALLEST_INPUT
from nat_mm.errors import UserError
from nat_mm.inference.inputs import Frame
from nat_mm.inference.mask_crops import MaskCrop

if TYPE_CHECKING:
    from nat_mm.inference.model import Model

_SAME_OBJECT = 0.5
"""Share of the smaller of two boxes that the other covers if both are of the same object."""


@dataclass(frozen=True)
class _Tile:
    left: int
    top: int
    right: int
    bottom: int


Found = Iterator[tuple[_Tile, BaseDataElement]]
"""The predictions for each tile."""


@dataclass(frozen=True)
class Tiling:
    """Square tiles that cover an image.

    Attributes:
        size: Side of a tile in pixels; if a side of an image is shorter, its tiles are, too.
        overlap: Least number of pixels by which neighboring tiles overlap. The last tile of a row
            or column ends at the edge of the image, and overlaps more.

    Raises:
        UserError: The size is below the smallest input of a backbone, or the overlap is negative or
            more than half of the size.
    """

    size: int
    overlap: int

    def __post_init__(self) -> None:
        if self.size < SMALLEST_INPUT:
            raise UserError(f'a tile must have at least {SMALLEST_INPUT} pixels, got {self.size}')
        if not 0 <= self.overlap <= self.size // 2:
            raise UserError(
                f'the overlap must be from 0 to half of the tile, {self.size // 2}, '
                f'got {self.overlap}'
            )

    def starts(self, length: int) -> list[int]:
        """Returns where the tiles begin along a side of an image of ``length`` pixels."""
        step = self.size - self.overlap
        count = 1 + max(0, -(-(length - self.size) // step))
        return [max(0, min(number * step, length - self.size)) for number in range(count)]

    def tiles(self, height: int, width: int) -> list[_Tile]:
        """Returns the tiles of an image, row by row; all have the same shape."""
        return [
            _Tile(left, top, min(left + self.size, width), min(top + self.size, height))
            for top in self.starts(height)
            for left in self.starts(width)
        ]

    def kept(self, start: int, length: int) -> slice:
        """Returns which pixels come from a tile: up to the middle of the overlaps on each side.

        Args:
            start: Where the tile begins along a side of the image.
            length: Pixels of the image along that side.
        """
        starts = self.starts(length)
        cuts = [(left + self.size + right) // 2 for left, right in pairwise(starts)]
        index = starts.index(start)
        return slice([0, *cuts][index], [*cuts, length][index])


def check_tiles_fit(model: 'Model') -> None:
    """Checks that tiles make sense for a model.

    Raises:
        UserError: The model is a classifier, or it is a detector and sahi, which merges its
            objects, is not installed.
    """
    if model.task == 'classification':
        raise UserError('a classifier has one answer for a whole image: predict without tiles')
    if model.task == 'detection' and find_spec('sahi') is None:
        raise UserError("sahi is not installed: pip install 'nat_mm[tile]'")


def infer_tiled(
    model: 'Model',
    frames: Sequence[Frame],
    tiling: Tiling,
    *,
    tiles_at_once: int,
    lowest_score: float,
) -> list[BaseDataElement]:
    """Runs a detector or segmentor on images, tile by tile.

    Each tile goes through the config's test pipeline as a separate image. The whole images are kept
    in memory.

    Args:
        model: The model.
        frames: The images.
        tiling: The tiles.
        tiles_at_once: Number of tiles predicted at once.
        lowest_score: Drops objects of a detector with lower scores.

    Returns:
        The toolbox's data sample for each image: for a segmentor, with ``pred_sem_seg`` in uint8 or
        uint16; for a detector, with ``pred_instances``, whose ``masks`` are a list of `MaskCrop`.

    Raises:
        UserError: See `check_tiles_fit`; or the model predicts panoptic segments.
    """
    check_tiles_fit(model)
    whole = []
    for frame in frames:
        found = _infer_tiles(model, frame, tiling, tiles_at_once)
        if model.task == 'segmentation':
            whole.append(_put_together(found, tiling, frame, model.label_dtype))
        else:
            whole.append(_collect(found, tiling, frame, lowest_score))
    return whole


def _put_together(
    found: Found, tiling: Tiling, frame: Frame, dtype: type[np.unsignedinteger]
) -> BaseDataElement:
    """Assembles the label map of an image."""
    height, width = frame.image.shape[:2]
    labels = np.empty((height, width), dtype)
    for tile, sample in found:
        rows, columns = tiling.kept(tile.top, height), tiling.kept(tile.left, width)
        part = sample.pred_sem_seg.data[0].cpu().numpy()
        labels[rows, columns] = part[
            rows.start - tile.top : rows.stop - tile.top,
            columns.start - tile.left : columns.stop - tile.left,
        ]
    whole = type(sample)()
    whole.pred_sem_seg = PixelData(data=torch.from_numpy(labels)[None])
    return whole


def _collect(found: Found, tiling: Tiling, frame: Frame, lowest_score: float) -> BaseDataElement:
    """Collects the objects of an image."""
    parts = []
    for tile, sample in found:
        if 'pred_panoptic_seg' in sample:
            raise UserError('panoptic segments cannot be joined: predict without tiles')
        parts.append(_in_image(sample.pred_instances, tile, lowest_score))
    whole = type(sample)()
    whole.pred_instances = _merge(parts, tiling, *frame.image.shape[:2])
    return whole


def _infer_tiles(model: 'Model', frame: Frame, tiling: Tiling, tiles_at_once: int) -> Found:
    loaded = model.loaded(frame)
    tiles = tiling.tiles(*frame.image.shape[:2])
    for start in range(0, len(tiles), tiles_at_once):
        batch = tiles[start : start + tiles_at_once]
        samples = model.infer([_cut(frame, loaded, tile) for tile in batch])
        yield from zip(batch, samples, strict=True)


def _cut(frame: Frame, loaded: dict, tile: _Tile) -> Frame:
    part = np.s_[tile.top : tile.bottom, tile.left : tile.right]
    image = np.ascontiguousarray(loaded['img'][part])
    shape = image.shape[:2]
    results = {**loaded, 'img': image, 'img_shape': shape, 'ori_shape': shape}
    return replace(frame, image=frame.image[part], results=results)


def _in_image(found: InstanceData, tile: _Tile, lowest_score: float) -> InstanceData:
    """Moves the objects of a tile to their position in the image."""
    found = found[found.scores >= lowest_score].cpu()
    moved = InstanceData(
        bboxes=found.bboxes + found.bboxes.new_tensor([tile.left, tile.top] * 2),
        scores=found.scores,
        labels=found.labels,
    )
    if 'masks' in found:
        masks = found.masks.numpy()
        # Copy, because a view would keep the masks of the whole tile in memory.
        crops = [MaskCrop.of(mask, left=tile.left, top=tile.top) for mask in masks]
        moved.masks = [replace(crop, mask=crop.mask.copy()) for crop in crops]
    return moved


def _merge(parts: Sequence[InstanceData], tiling: Tiling, height: int, width: int) -> InstanceData:
    """Merges objects that several tiles have found; returns all, the highest score first."""
    from sahi.postprocess.combine import batched_greedy_nmm

    found = InstanceData.cat(parts)
    boxes = found.bboxes.numpy().copy()
    seen_by = np.ones(len(boxes), int)
    for axis, length in enumerate((width, height)):
        starts = np.array(tiling.starts(length))
        begins, ends = boxes[:, axis, None], boxes[:, axis + 2, None]
        seen_by *= ((starts < ends) & (starts + tiling.size > begins)).sum(axis=1)
    # If only one tile sees an object, the model itself has removed duplicates.
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    shared = np.flatnonzero((seen_by > 1) & has_area)
    described = np.column_stack([boxes, found.scores, found.labels])[shared].astype(np.float32)
    merged = batched_greedy_nmm(described, match_metric='IOS', match_threshold=_SAME_OBJECT)
    kept = np.ones(len(boxes), bool)
    masks = list(found.masks) if 'masks' in found else None
    for keeper, others in merged.items():
        for other in shared[list(others)]:
            number = shared[keeper]
            kept[other] = False
            boxes[number, :2] = np.minimum(boxes[number, :2], boxes[other, :2])
            boxes[number, 2:] = np.maximum(boxes[number, 2:], boxes[other, 2:])
            if masks is not None:
                masks[number] = masks[number].united(masks[other])
    found.bboxes = torch.from_numpy(boxes)
    if masks is not None:
        found.masks = masks
    scores = found.scores.numpy()
    order = np.flatnonzero(kept)[np.argsort(-scores[kept], kind='stable')]
    return found[torch.as_tensor(order)]
