"""Maps smaller than a window: enlarged with zeros before attention, cropped after it.

A compiled or exported graph does both for maps of any size, if by nothing, because a decision on
the size would make it a graph for some sizes only. A compiler that fuses pays nothing for that.
"""

import torch
from torch.nn.functional import pad


def pad_small_map(x: torch.Tensor, smallest: int) -> torch.Tensor:
    """Appends zeros on the right and at the bottom of a map that is too small.

    Args:
        x: Map, ``[B, H, W, C]``.
        smallest: Least height and width of the result.

    Returns:
        ``[B, max(H, smallest), max(W, smallest), C]``; ``x`` itself if that is large enough.
    """
    _, height, width, _ = x.shape
    compiling = torch.compiler.is_compiling()
    if compiling or height < smallest or width < smallest:
        larger = torch.sym_max if compiling else max  # torch.jit.trace's sizes are tensors
        bottom, right = (larger(0, smallest - length) for length in (height, width))
        x = pad(x, (0, 0, 0, right, 0, bottom))
    return x


def crop_map(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Takes the upper left part of a map.

    Args:
        x: Map, ``[B, H, W, C]``, contiguous.
        height: Number of rows to keep, at most H.
        width: Number of columns to keep, at most W.

    Returns:
        ``[B, height, width, C]``, contiguous; ``x`` itself if nothing is cut off.
    """
    if torch.compiler.is_compiling():
        # Whether a slice is contiguous depends on the size; what is padded is, by any number.
        return pad(x, (0, 0, 0, width - x.shape[2], 0, height - x.shape[1]))
    return x[:, :height, :width].contiguous()
