"""Relative position bias (RPB) tables: their size follows the kernel size."""

import torch
from torch.nn.functional import interpolate


def is_resizable_rpb(source_shape: torch.Size, target_shape: torch.Size) -> bool:
    """Tells whether an RPB table can be resized to another kernel size.

    Args:
        source_shape: Shape of the stored table.
        target_shape: Shape of the wanted table, ``[heads, 2k - 1, 2k - 1]``.

    Returns:
        True if both are tables of the same number of heads.
    """
    return (
        len(source_shape) == len(target_shape) == 3
        and source_shape[0] == target_shape[0]
        and source_shape[1] == source_shape[2]
        and source_shape[1] % 2 == 1
    )


def resize_rpb(table: torch.Tensor, kernel_size: int) -> torch.Tensor:
    """Resizes an RPB table to another kernel size by bicubic interpolation.

    The offsets of the old window are stretched over the new one, as is usual for window
    attention (and as the published DiNAT-Large with an 11x11 kernel was made from the 7x7 one).

    Args:
        table: Floating point table, ``[heads, 2k - 1, 2k - 1]``.
        kernel_size: Kernel size of the result.

    Returns:
        The table, ``[heads, 2 * kernel_size - 1, 2 * kernel_size - 1]``, in the dtype of ``table``.
    """
    length = 2 * kernel_size - 1
    resized = interpolate(table[None].float(), size=(length, length), mode='bicubic')
    return resized[0].to(table.dtype)
