"""On a CPU, mmdet cannot paste the mask of a box that lies outside of the image.

QueryInst predicts such boxes, which ended its validation in an error of ``torch.arange``.
"""

import functools
from types import ModuleType

import torch

from nat_mm.compat import NOT_REPORTED

BROKEN_IN = {'mmdet': '<3.6'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmdet.models.roi_heads.mask_heads.fcn_mask_head',)


def repair(module: ModuleType) -> None:
    """Pastes masks into the whole image, as on a GPU, if none of their boxes touches it.

    Args:
        module: ``mmdet.models.roi_heads.mask_heads.fcn_mask_head``.
    """
    paste = module._do_paste_mask

    @functools.wraps(paste)
    def paste_masks(
        masks: torch.Tensor, boxes: torch.Tensor, img_h: int, img_w: int, skip_empty: bool = True
    ) -> tuple[torch.Tensor, tuple[slice, ...]]:
        inside = (boxes[:, 2:] > 0) & (boxes[:, :2] < boxes.new_tensor([img_w, img_h]))
        return paste(masks, boxes, img_h, img_w, skip_empty and bool(inside.any(dim=0).all()))

    module._do_paste_mask = paste_masks
