"""Masks of point-wise spatial attention (PSANet, ECCV 2018), forward and backward.

Each position has a weight for each position around it, in a window of ``h_mask`` by ``w_mask``. The
operators spread the windows over the whole map.
"""

import torch
from torch import Tensor

_COLLECT = 0


def psamask_forward(
    input: Tensor,
    output: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Write the weights of all pairs of positions into ``output``.

    Args:
        input: [B, h_mask * w_mask, h_feature, w_feature], the window of each position.
        output: [B, h_feature * w_feature, h_feature, w_feature], written: 0 outside of windows. The
            position that owns the window is in the last two axes for ``psa_type`` 0, in the second
            axis for 1.
        psa_type: 0 for 'collect', 1 for 'distribute'.
        num_: B; not used.
        h_feature: Height of the map.
        w_feature: Width of the map.
        h_mask: Height of the window.
        w_mask: Width of the window.
        half_h_mask: Number of the window's rows above its position.
        half_w_mask: Number of the window's columns to the left of its position.
    """
    cells, inside = _window_cells(
        input, h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask
    )
    weights = input.flatten(2).gather(1, cells.expand(len(input), -1, -1)).where(inside, 0)
    if psa_type != _COLLECT:
        weights = weights.transpose(1, 2)
    output.copy_(weights.reshape(output.shape))


def psamask_backward(
    grad_output: Tensor,
    grad_input: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Write the gradient of the windows into ``grad_input``.

    ``grad_output`` is shaped like the output of :func:`psamask_forward`, ``grad_input`` like its
    input; the other arguments are the same.
    """
    cells, inside = _window_cells(
        grad_output, h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask
    )
    grad = grad_output.flatten(2)
    if psa_type != _COLLECT:
        grad = grad.transpose(1, 2)
    windows = grad.new_zeros(len(grad), h_mask * w_mask, h_feature * w_feature)
    windows.scatter_add_(1, cells.expand(len(grad), -1, -1), grad.where(inside, 0))
    grad_input.copy_(windows.view_as(grad_input))


def _window_cells(
    like: Tensor,
    height: int,
    width: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> tuple[Tensor, Tensor]:
    """Return which cell of the second position's window contains the first, and if one does.

    Both are [height * width, height * width].
    """
    y = torch.arange(height, device=like.device).repeat_interleave(width)
    x = torch.arange(width, device=like.device).repeat(height)
    row = y[:, None] - y + half_h_mask
    column = x[:, None] - x + half_w_mask
    inside = (row >= 0) & (row < h_mask) & (column >= 0) & (column < w_mask)
    return (row * w_mask + column).where(inside, 0), inside
