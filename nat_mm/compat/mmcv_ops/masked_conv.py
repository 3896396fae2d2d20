"""Convolution at selected positions: what MaskedConv2d does before and after its product."""

import torch
from torch import Tensor
from torch.nn import functional as F


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Write what the kernel covers at each of the positions into ``col``.

    Args:
        im: [1, C, H, W].
        mask_h_idx: [M] rows of the positions, int64.
        mask_w_idx: [M] columns of the positions, int64.
        col: [C * kernel_h * kernel_w, M], written.
        kernel_h: Height of the kernel.
        kernel_w: Width of the kernel.
        pad_h: Zeros at the top and bottom.
        pad_w: Zeros at the left and right.
    """
    padded = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    rows = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None]
    columns = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, rows[:, None], columns].view_as(col))


def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Write the results ``col`` to their positions in ``im``.

    Args:
        col: [channels, M].
        mask_h_idx: [M] rows of the positions, int64.
        mask_w_idx: [M] columns of the positions, int64.
        im: [1, channels, height, width], written at the positions.
        height: Not used, since it follows from ``im``.
        width: The same.
        channels: The same.
    """
    im[0, :, mask_h_idx, mask_w_idx] = col.to(im.dtype)
