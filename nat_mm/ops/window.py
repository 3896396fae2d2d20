"""The window of each token along one axis."""

from __future__ import annotations

import torch
from torch import Tensor


def axis_window(
    length: int, kernel_size: int, dilation: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Returns every token's neighbors along one axis, and their relative positions.

    Positions with the same remainder modulo ``dilation`` form a residue class. A token attends to
    the ``kernel_size`` tokens of its class that are centered on it or, near a border, to the
    ``kernel_size`` tokens of its class closest to that border.

    Args:
        length: Number of tokens L along the axis, at least ``kernel_size * dilation``.
        kernel_size: Odd window size k.
        dilation: Distance between neighbors.
        device: Device of the result; defaults to the CPU.

    Returns:
        ``(neighbors, relative)``, both int64 of shape [L, k]: the position of each neighbor, and
        its row (or column) in a bias table of size 2k - 1, where k - 1 is the token itself.
    """
    position = torch.arange(length, device=device)
    residue = position % dilation
    index = position // dilation
    class_size = (length - residue + dilation - 1) // dilation
    start = (index - kernel_size // 2).clamp(min=0).minimum(class_size - kernel_size)
    member = start[:, None] + torch.arange(kernel_size, device=device)
    neighbors = residue[:, None] + dilation * member
    relative = member - index[:, None] + kernel_size - 1
    return neighbors, relative
