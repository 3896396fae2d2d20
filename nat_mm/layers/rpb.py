"""Resizes relative positional bias (RPB) tables to another window or map size."""

import logging
from typing import Any

import torch
from torch.nn.functional import interpolate


def is_resizable_rpb(source_shape: torch.Size, target_shape: torch.Size) -> bool:
    """Returns whether an RPB table can be resized to another kernel size.

    Args:
        source_shape: Shape of the stored table.
        target_shape: Shape of the desired table, ``[heads, 2k - 1, 2k - 1]``.

    Returns:
        True if both are tables with the same number of heads.
    """
    return (
        len(source_shape) == len(target_shape) == 3
        and source_shape[0] == target_shape[0]
        and source_shape[1] == source_shape[2]
        and source_shape[1] % 2 == 1
    )


def resize_rpb(table: torch.Tensor, size: int | tuple[int, int]) -> torch.Tensor:
    """Resizes an RPB table to another kernel or map size by bicubic interpolation.

    The offsets of the old window are stretched over the new one, as is common for window attention
    (the published DiNAT-Large with an 11x11 kernel was made from the 7x7 one in this way).

    Args:
        table: Floating point table, ``[heads, 2k - 1, 2k - 1]``.
        size: Kernel size of the result, or height and width of the map whose offsets it covers.

    Returns:
        The table, ``[heads, 2 * size - 1, 2 * size - 1]``, in the dtype of ``table``.
    """
    height, width = (size, size) if isinstance(size, int) else size
    lengths = (2 * height - 1, 2 * width - 1)
    precise = table[None].to(torch.promote_types(table.dtype, torch.float32))
    resized = interpolate(precise, size=lengths, mode='bicubic')
    return resized[0].to(table.dtype)


def resize_stored_rpb(
    state_dict: dict[str, Any], key: str, rpb: torch.Tensor | None, *, measure: str
) -> None:
    """Resizes the RPB table in a state dict to fit the module that is about to load it.

    Args:
        state_dict: State dict, modified in place if it has a table of another size.
        key: Key of the table.
        rpb: The module's own table, ``[heads, 2k - 1, 2k - 1]``; None if it has none.
        measure: What ``k`` measures, such as 'kernel size'; for the log.
    """
    table = state_dict.get(key)
    if rpb is None or table is None or table.shape == rpb.shape:
        return
    if is_resizable_rpb(table.shape, rpb.shape):
        source, target = ((shape[-1] + 1) // 2 for shape in (table.shape, rpb.shape))
        state_dict[key] = resize_rpb(table, target)
        _log(
            f'{key}: relative positional bias resized from {measure} {source} '
            f'to {target} by bicubic interpolation'
        )


def _log(line: str) -> None:
    """Writes to the log of OpenMMLab's runner or, without mmengine, to Python's."""
    try:
        from mmengine.logging import print_log
    except ImportError:
        logging.getLogger(__name__).info(line)
    else:
        print_log(line, logger='current')
