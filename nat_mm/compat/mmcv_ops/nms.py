"""Non-maximum suppression."""

import torch
import torchvision
from torch import Tensor

from .precision import at_least_fp32


def nms(bboxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Keep the best-scored of every group of overlapping boxes.

    Args:
        bboxes: [N, 4], corners x1, y1, x2, y2 in pixels.
        scores: [N].
        iou_threshold: A box is dropped if its IoU with a kept, better box is larger.
        offset: 1 if the last pixel belongs to the box (width x2 - x1 + 1), else 0.

    Returns:
        Indices of the kept boxes, int64, by falling score.
    """
    bboxes = at_least_fp32(bboxes)
    if offset:
        bboxes = bboxes + bboxes.new_tensor([0, 0, offset, offset])
    # mmcv sorts like this, torchvision keeps equal scores in input order: give it ranks instead.
    order = scores.sort(descending=True).indices
    ranks = torch.arange(len(order), 0, -1, device=bboxes.device, dtype=bboxes.dtype)
    return order[torchvision.ops.nms(bboxes[order], ranks, iou_threshold)]
