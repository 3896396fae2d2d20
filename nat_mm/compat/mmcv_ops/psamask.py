"""The masks of point-wise spatial attention (PSANet, ECCV 2018), forward and backward.

Every place has a weight for each place around it, in a window of ``h_mask`` by ``w_mask``. The
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
    """Write the weights of all pairs of places into ``output``.

    Args:
        input: [B, h_mask * w_mask, h_feature, w_feature], the window of every place.
        output: [B, h_feature * w_feature, h_feature, w_feature], written: 0 outside of windows.
            By ``psa_type`` the place that owns the window is the last two axes or the second one.
        psa_type: 0 for 'collect', 1 for 'distribute'.
        num_: B; not used.
        h_feature: Height of the map.
        w_feature: Its width.
        h_mask: Height of the window.
        w_mask: Its width.
        half_h_mask: Rows of the window above its place.
        half_w_mask: Columns of the window at the left of its place.
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

    ``grad_output`` is shaped like the output, ``grad_input`` like the input of
    :func:`psamask_forward`; the other arguments are the same.
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
    """Return the cell of the second place's window in which the first one lies, and if it does.

    Both are [height * width, height * width].
    """
    y = torch.arange(height, device=like.device).repeat_interleave(width)
    x = torch.arange(width, device=like.device).repeat(height)
    row = y[:, None] - y + half_h_mask
    column = x[:, None] - x + half_w_mask
    inside = (row >= 0) & (row < h_mask) & (column >= 0) & (column < w_mask)
    return (row * w_mask + column).where(inside, 0), inside
