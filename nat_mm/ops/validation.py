"""Argument checks and casts for autocast, shared by all backends and layers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

SUPPORTED_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Element types that the operator accepts."""

_LAYOUTS = {
    1: ('[B, L, heads, head_dim]', ('length of the sequence',), '[heads, 2*k - 1]'),
    2: (
        '[B, H, W, heads, head_dim]',
        ('height of the map', 'width of the map'),
        '[heads, 2*kh - 1, 2*kw - 1]',
    ),
}
"""Layout of the tensors, names of the axes and layout of the bias, by number of axes."""


def as_pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """Turns an int or a pair of ints into (rows, columns).

    Raises:
        TypeError: If ``value`` is neither.
    """
    if type(value) is int:  # by far the most common case, checked in every call
        return value, value
    pair: Any = (value, value) if isinstance(value, int) else value
    if (
        isinstance(pair, str)
        or not isinstance(pair, Sequence)
        or len(pair) != 2
        or any(isinstance(item, bool) or not isinstance(item, int) for item in pair)
    ):
        raise TypeError(f'{name} must be an int or a pair of ints (rows, columns), got {value!r}')
    return int(pair[0]), int(pair[1])


def check_kernel_size(kernel_size: int | Sequence[int]) -> tuple[int, int]:
    """Returns the kernel size as (rows, columns).

    One of the two may be 1; tokens then attend only along the other axis. Both may not, since the
    output of a token that attends only to itself is its own value.

    Raises:
        TypeError: If it is not an int or a pair of ints.
        ValueError: If it is even or below 3, except for a single 1.
    """
    pair = as_pair('kernel_size', kernel_size)
    for size in pair:
        if size == 1 and max(pair) > 1:
            continue
        if size < 3 or size % 2 == 0:
            hint = f'use {size - 1} or {size + 1}' if size > 3 else 'use 3'
            rule = 'odd and at least 3'
            if not isinstance(kernel_size, int):
                rule += ', or 1 on one of the axes'
            raise ValueError(f'kernel_size must be {rule}, got {kernel_size!r}; {hint}')
    return pair


def check_dilation(dilation: int | Sequence[int]) -> tuple[int, int]:
    """Returns the dilation as (rows, columns).

    Raises:
        TypeError: If it is not an int or a pair of ints.
        ValueError: If it is below 1.
    """
    pair = as_pair('dilation', dilation)
    if min(pair) < 1:
        raise ValueError(f'dilation must be at least 1, got {dilation!r}')
    return pair


def check_scale(scale: float | None, head_dim: int) -> float:
    """Returns the factor on the query-key products, by default ``head_dim ** -0.5``.

    Raises:
        TypeError: If it is not a number.
        ValueError: If it is not finite and positive.
    """
    if scale is None:
        return head_dim**-0.5
    # A tuple because PyTorch 2.9 cannot compile unions of types.
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        raise TypeError(f'scale must be a number or None, got {type(scale).__name__}')
    if not 0 < scale <= sys.float_info.max:  # an int may be too large for a float
        raise ValueError(f'scale must be finite and positive, got {scale}')
    return float(scale)


def check_tensors(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size: tuple[int, ...],
    dilation: tuple[int, ...],
) -> None:
    """Checks that the tensors match each other, the kernel size and the dilation.

    Kernel size and dilation have two entries for a map and one for a sequence.

    Raises:
        TypeError: If an argument is not a tensor, or its dtype is unsupported or differs from
            query's.
        ValueError: If a tensor is not strided, shapes or devices do not match, head_dim is 0, or
            the map is smaller than a window.
    """
    named = (('query', query), ('key', key), ('value', value), ('bias', bias))
    for name, tensor in named[:3] if bias is None else named:
        if not isinstance(tensor, Tensor):
            raise TypeError(f'{name} must be a tensor, got {type(tensor).__name__}')
        if tensor.dtype not in SUPPORTED_DTYPES:
            known = ', '.join(str(dtype) for dtype in SUPPORTED_DTYPES)
            raise TypeError(f'{name} must be one of {known}, got {tensor.dtype}')
        if tensor.layout is not torch.strided or tensor.is_nested:
            kind = 'nested tensor' if tensor.is_nested else tensor.layout
            raise ValueError(f'{name} must be a strided tensor, got a {kind}')
    shape, dtype, device = query.shape, query.dtype, query.device
    layout, axes, bias_layout = _LAYOUTS[len(kernel_size)]
    if len(shape) != len(axes) + 3:
        raise ValueError(f'query must have {len(axes) + 3} dimensions {layout}, got {tuple(shape)}')
    if shape[-1] == 0:
        raise ValueError(f'head_dim must be at least 1, got query of shape {tuple(shape)}')
    for name, tensor in named[1:3]:
        if tensor.shape != shape:
            raise ValueError(
                f'{name} must have the shape of query, {tuple(shape)}, got {tuple(tensor.shape)}'
            )
        if tensor.dtype != dtype:
            raise TypeError(f'{name} must have the dtype of query, {dtype}, got {tensor.dtype}')
        if tensor.device != device:
            raise ValueError(
                f'{name} must be on the device of query, {device}, got {tensor.device}'
            )
    for axis, name in enumerate(axes):
        length, size, step = shape[axis + 1], kernel_size[axis], dilation[axis]
        if length < size * step:
            raise ValueError(
                f'{name} must be at least kernel_size * dilation = {size} * {step} = '
                f'{size * step}, got {length}; pad it or lower the dilation'
            )
    if bias is not None:
        if bias.device != device:
            raise ValueError(f'bias must be on the device of query, {device}, got {bias.device}')
        expected = (shape[-2], *(2 * size - 1 for size in kernel_size))
        if tuple(bias.shape) != expected:
            raise ValueError(
                f'bias must have shape {bias_layout} = {list(expected)}, got {list(bias.shape)}'
            )


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """Returns autocast's dtype for a device type, or None where autocast is off."""
    # PyTorch 2.9 cannot compile is_autocast_available. Of the devices used here, only meta lacks
    # it.
    if device_type == 'meta' or not torch.is_autocast_enabled(device_type):
        return None
    return torch.get_autocast_dtype(device_type)


def without_autocast(device_type: str) -> AbstractContextManager:
    """Returns a context in which autocast is off; the device meta has none."""
    return nullcontext() if device_type == 'meta' else torch.autocast(device_type, enabled=False)


def cast_for_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Casts query, key and value to autocast's dtype where autocast is on.

    float64 is left alone, as in PyTorch's own autocast. Do not pass the bias: it stays in full
    precision, since every backend adds it to scores of at least float32.
    """
    dtype = autocast_dtype(tensors[0].device.type)
    if dtype is None:
        return tensors
    return tuple(
        tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in tensors
    )


def check_int(name: str, value: int, *, minimum: int) -> None:
    """Raises if ``value`` is not an int (bool excluded) of at least ``minimum``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f'{name} must be an int of at least {minimum}, got {value!r}')
    if value < minimum:
        raise ValueError(f'{name} must be at least {minimum}, got {value}')


def check_window_length(kernel_size: int) -> None:
    """Raises if ``kernel_size`` is not an odd int of at least 3."""
    check_int('kernel_size', kernel_size, minimum=3)
    check_kernel_size(kernel_size)


def check_probability(name: str, value: float) -> None:
    """Raises if ``value`` is not a number in [0, 1)."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f'{name} must be a number in [0, 1), got {value!r}')
    if not 0 <= value < 1:
        raise ValueError(f'{name} must be in [0, 1), got {value}')


def check_positive(name: str, value: float) -> None:
    """Raises if ``value`` is not a finite number above 0."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f'{name} must be a number above 0, got {value!r}')
    if value <= 0:
        raise ValueError(f'{name} must be above 0, got {value}')
    if not value <= sys.float_info.max:
        raise ValueError(f'{name} must be finite, got {value}')


def check_bool(name: str, value: bool) -> None:
    """Raises if ``value`` is not a bool."""
    if not isinstance(value, bool):
        raise TypeError(f'{name} must be True or False, got {value!r}')
