"""Computes which tokens a token attends to along one axis, for every attention pattern."""

import torch
from torch import Tensor, nn

from nat_mm.layers import (
    NeighborhoodAttention2D,
    SelfAttention2D,
    ShiftedWindowAttention2D,
    StandAloneAttention2D,
)
from nat_mm.ops.window import axis_window


def axis_reach(attention: nn.Module, length: int) -> Tensor:
    """Computes which tokens attend to which along one axis of the feature map.

    In all patterns, a token attends to the product of a set of rows and a set of columns.

    Args:
        attention: Attention module of a layer.
        length: Number of tokens L on the axis.

    Returns:
        [L, L], bool: row i is True at the tokens that token i attends to, without padding.

    Raises:
        TypeError: The module's attention pattern is unknown.
    """
    position = torch.arange(length)
    distance = position - position[:, None]
    if isinstance(attention, SelfAttention2D):
        return torch.ones(length, length, dtype=torch.bool)
    if isinstance(attention, ShiftedWindowAttention2D):
        shift = attention.shift if length > attention.window_size else 0
        window = (position - shift).div(attention.window_size, rounding_mode='floor')
        return window == window[:, None]
    if isinstance(attention, StandAloneAttention2D):
        farthest = attention.dilation * (attention.kernel_size // 2)
        return (distance.abs() <= farthest) & (distance % attention.dilation == 0)
    if isinstance(attention, NeighborhoodAttention2D):
        padded = max(length, attention.kernel_size * attention.dilation)
        neighbors, _ = axis_window(padded, attention.kernel_size, attention.dilation)
        reach = torch.zeros(padded, padded, dtype=torch.bool)
        return reach.scatter_(1, neighbors, True)[:length, :length]
    raise TypeError(f'unknown attention: {type(attention).__name__}')
