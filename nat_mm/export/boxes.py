"""Boxes in an exported detector: anchors, decoding, and non-maximum suppression."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nat_mm.errors import UserError
from nat_mm.export.operators import highest, suppress

MOST = 2**31 - 1
"""Means all boxes of a level, if the config gives no number."""


def candidates(
    head: Any, scores: Sequence[Tensor], deltas: Sequence[Tensor], content: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Decodes the highest-scoring anchors of each level.

    Args:
        head: An anchor head of mmdet.
        scores: Raw scores of each level, [1, anchors * classes, H, W].
        deltas: Predicted deltas of each level, [1, anchors * 4, H, W].
        content: Height and width of the image without padding.
        count: Number of (anchor, class) pairs to keep per level; all if not positive.

    Returns:
        Boxes [n, 4], and their scores, labels and levels, [n] each.
    """
    anchors = head.prior_generator.grid_priors(
        [each.shape[-2:] for each in scores], dtype=scores[0].dtype, device=scores[0].device
    )
    found = []
    for level, (score, delta, anchor) in enumerate(zip(scores, deltas, anchors, strict=True)):
        score = score[0].permute(1, 2, 0).reshape(-1, head.cls_out_channels)
        score = score.sigmoid() if head.use_sigmoid_cls else score.softmax(dim=1)[:, :-1]
        classes = score.shape[1]
        score, index = highest(score.reshape(-1), count if count > 0 else MOST)
        row = index // classes
        delta = delta[0].permute(1, 2, 0).reshape(-1, 4)
        box = decode_boxes(head.bbox_coder, anchor[row], delta[row], content)
        found.append((box, score, index % classes, torch.full_like(index, level)))
    boxes, values, labels, levels = (torch.cat(each) for each in zip(*found, strict=True))
    return boxes, values, labels, levels


def decode_boxes(coder: Any, boxes: Tensor, deltas: Tensor, content: Tensor) -> Tensor:
    """Applies a head's predicted deltas to boxes.

    Args:
        coder: mmdet's ``DeltaXYWHBBoxCoder``.
        boxes: [n, 4], corners x1, y1, x2, y2.
        deltas: [n, 4].
        content: Height and width of the image, to which the boxes are clipped.

    Returns:
        [n, 4].
    """
    deltas = deltas * deltas.new_tensor(coder.stds) + deltas.new_tensor(coder.means)
    corners, others = boxes[:, :2], boxes[:, 2:]
    extent = others - corners
    shift = deltas[:, :2] * extent
    ratio = abs(torch.tensor(16 / 1000).log())
    log_growth = deltas[:, 2:]
    if coder.add_ctr_clamp:
        shift = shift.clamp(-coder.ctr_clamp, coder.ctr_clamp)
        log_growth = log_growth.clamp(max=ratio)
    else:
        log_growth = log_growth.clamp(-ratio, ratio)
    center = (corners + others) * 0.5 + shift
    half = extent * log_growth.exp() * 0.5
    limit = content.flip(0).to(boxes.dtype)
    moved = (center - half, center + half)
    return torch.cat([each.clamp(min=0).minimum(limit) for each in moved], dim=1)


def select(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    content: Tensor,
    settings: Any,
    *,
    score_threshold: float,
) -> Tensor:
    """Non-maximum suppression within groups of boxes.

    Args:
        boxes: [n, 4], inside the image.
        scores: [n], from 0 to 1.
        groups: [n], int64; boxes of different groups do not suppress each other.
        content: Height and width of the image.
        settings: mmdet's ``test_cfg``: ``nms``, ``max_per_img`` and ``min_bbox_size``.
        score_threshold: Only boxes with higher scores are kept.

    Returns:
        Indices of the kept boxes, highest score first.
    """
    smallest = settings.get('min_bbox_size', -1)
    if smallest >= 0:
        large = ((boxes[:, 2:] - boxes[:, :2]) > smallest).all(dim=1)
        scores = scores.where(large, torch.zeros_like(scores))
    if not settings.nms.get('class_agnostic', False):
        # Offsets each group, so that boxes of different groups do not overlap.
        boxes = boxes + (groups * (content.max() + 1)).to(boxes.dtype)[:, None]
    count = settings.get('max_per_img', -1)
    threshold = settings.nms.get('iou_threshold', settings.nms.get('iou_thr'))
    return suppress(boxes, scores, threshold, score_threshold, count if count > 0 else MOST)


def check_head(head: Any) -> None:
    """Checks that a head's box coding is supported.

    Raises:
        UserError: If it is not.
    """
    coder = head.bbox_coder
    name = type(head).__name__
    if type(coder).__name__ != 'DeltaXYWHBBoxCoder' or not coder.clip_border:
        raise UserError(
            f'{name} has the box coder {type(coder).__name__}: only DeltaXYWHBBoxCoder with '
            'clip_border=True can be exported'
        )
    if getattr(head.loss_cls, 'custom_cls_channels', False):
        raise UserError(f'{name} has {type(head.loss_cls).__name__}, which cannot be exported')


def check_suppression(settings: Any, place: str) -> None:
    """Checks that the config's suppression is the one that ONNX supports.

    Args:
        settings: mmdet's ``test_cfg`` with ``nms``.
        place: Its place in the config.

    Raises:
        UserError: If it is not.
    """
    kind = settings.nms.get('type', 'nms')
    if kind != 'nms':
        raise UserError(
            f'{place}.nms.type is {kind}, for which ONNX has no operator: '
            f'--cfg-options {place}.nms.type=nms'
        )
