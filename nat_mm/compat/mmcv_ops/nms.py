"""Non-maximum suppression."""

import torch
import torchvision
from torch import Tensor

from .box_overlaps import find_near_pairs, overlap_of_pairs
from .precision import at_least_fp32


def nms(bboxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Keep the highest-scoring box of each group of overlapping boxes.

    Args:
        bboxes: [N, 4], corners x1, y1, x2, y2 in pixels.
        scores: [N].
        iou_threshold: A box is dropped if its IoU with a better box that is kept is larger.
        offset: 1 if the last pixel belongs to the box (width x2 - x1 + 1), otherwise 0.

    Returns:
        Indices of the kept boxes, int64, by descending score.
    """
    bboxes = at_least_fp32(bboxes)
    if offset:
        bboxes = bboxes + bboxes.new_tensor([0, 0, offset, offset])
    # mmcv sorts like this, but torchvision keeps equal scores in input order, so it gets ranks.
    order = scores.sort(descending=True).indices
    ranks = torch.arange(len(order), 0, -1, device=bboxes.device, dtype=bboxes.dtype)
    return order[torchvision.ops.nms(bboxes[order], ranks, iou_threshold)]


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group each kept box with those that it suppresses.

    Args:
        dets: [N, 5], corners x1, y1, x2, y2 and score.
        iou_threshold: A box is suppressed if its IoU with a better box that is kept is not smaller.

    Returns:
        The indices of each group, with the kept box first and the others by descending score.
    """
    boxes, scores = at_least_fp32(dets).split([4, 1], dim=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
    remaining = scores.squeeze(1).sort(descending=True).indices
    groups = []
    while len(remaining):
        best, remaining = remaining[0], remaining[1:]
        top_left = torch.maximum(boxes[best, :2], boxes[remaining, :2])
        bottom_right = torch.minimum(boxes[best, 2:], boxes[remaining, 2:])
        common = (bottom_right - top_left).clamp(min=0).prod(dim=1)
        suppressed = common / (areas[best] + areas[remaining] - common) >= iou_threshold
        groups.append([int(best), *remaining[suppressed].tolist()])
        remaining = remaining[~suppressed]
    return groups


def nms_rotated(
    dets: Tensor,
    scores: Tensor,
    order: Tensor,
    dets_sorted: Tensor,
    labels: Tensor,
    iou_threshold: float,
    multi_label: bool,
) -> Tensor:
    """Keep the highest-scoring box of each group of overlapping rotated boxes, of any class.

    Args:
        dets: [N, 5], center x and y, width, height and angle in radians, or [N, 6] with the label,
            which is ignored as in the compiled operator.
        scores: [N].
        order: [N], indices by descending score.
        dets_sorted: ``dets`` in this order.
        labels: Not used.
        iou_threshold: A box is dropped if its IoU with a better box that is kept is larger or, as
            in the compiled operator on the CPU, equal.
        multi_label: Whether ``dets`` has labels; not used.

    Returns:
        Indices of the kept boxes, int64, by descending score.
    """
    boxes = at_least_fp32(dets_sorted[:, :5])
    first, second = find_near_pairs(boxes, boxes)
    is_later = second > first
    first, second = first[is_later], second[is_later]
    overlaps = overlap_of_pairs(boxes[first], boxes[second])
    overlapping = overlaps >= iou_threshold if dets.is_cpu else overlaps > iou_threshold
    # The rest is a short loop over scalars, which would be slow on a GPU.
    pairs = torch.stack([first, second])[:, overlapping].cpu()
    followers = pairs[1].split(torch.bincount(pairs[0], minlength=len(boxes)).tolist())
    suppressed = torch.zeros(len(boxes), dtype=torch.bool)
    for index, following in enumerate(followers):
        if not suppressed[index]:
            suppressed[following] = True
    return order[~suppressed.to(order.device)]
