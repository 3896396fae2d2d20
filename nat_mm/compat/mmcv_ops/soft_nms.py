"""Soft non-maximum suppression (arXiv 1704.04503)."""

import torch
from torch import Tensor

from .precision import at_least_fp32

_NAIVE, _LINEAR, _GAUSSIAN = 0, 1, 2


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of boxes that overlap better ones, and drop boxes with too low scores.

    Args:
        boxes: [N, 4], corners x1, y1, x2, y2 in pixels.
        scores: [N].
        dets: [N, 5], written: the first M rows become the kept boxes and their new scores.
        iou_threshold: IoU from which on methods 0 and 1 lower a score.
        sigma: Width of the Gaussian in method 2.
        min_score: Boxes with lower scores are dropped.
        method: What a score is multiplied by: 0 for 0 (hard NMS), 1 for 1 - IoU, 2 for
            exp(-IoU^2 / sigma).
        offset: 1 if the last pixel belongs to the box (width x2 - x1 + 1), otherwise 0.

    Returns:
        Indices [M] of the kept boxes, int64, in the order of ``dets``.
    """
    boxes, scores = at_least_fp32(boxes), at_least_fp32(scores).clone()
    areas = (boxes[:, 2:] - boxes[:, :2] + offset).prod(dim=1)
    remaining = torch.arange(len(boxes), device=boxes.device)
    kept = []
    while len(remaining):
        best = scores[remaining].argmax()
        index = remaining[best]
        kept.append(index)
        remaining = torch.cat([remaining[:best], remaining[best + 1 :]])

        top_left = torch.maximum(boxes[index, :2], boxes[remaining, :2])
        bottom_right = torch.minimum(boxes[index, 2:], boxes[remaining, 2:])
        overlap = (bottom_right - top_left + offset).clamp(min=0).prod(dim=1)
        iou = overlap / (areas[index] + areas[remaining] - overlap)
        scores[remaining] *= _decay(iou, iou_threshold, sigma, method)
        remaining = remaining[~(scores[remaining] < min_score)]

    indices = torch.stack(kept) if kept else remaining
    dets[: len(indices)] = torch.cat([boxes[indices], scores[indices, None]], dim=1).to(dets.dtype)
    return indices


def _decay(iou: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    if method == _GAUSSIAN:
        return torch.exp(-(iou * iou) / sigma)
    decayed = 1 - iou if method == _LINEAR else torch.zeros_like(iou)
    return torch.where(iou >= iou_threshold, decayed, torch.ones_like(iou))
