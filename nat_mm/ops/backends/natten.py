"""NATTEN >= 0.21 for CUDA tensors, with the bias folded into the head dimension.

From release 0.20 on, NATTEN's kernels do not support a relative positional bias, see
https://natten.org; :func:`nat_mm.ops.folding.fold_bias` adds it back.
"""

from __future__ import annotations

import functools
import importlib.metadata
import re

import torch
import torch.nn.functional as F
from torch import Tensor

from nat_mm.ops.folding import fold_bias
from nat_mm.ops.library import assume_constant_result

MINIMUM_VERSION = (0, 21)
WIDTH_MULTIPLE = 8
"""NATTEN's kernels need head dimensions that are multiples of this."""


@assume_constant_result
def installation_problem() -> str | None:
    """Returns why the installed NATTEN cannot be used, or None if it can.

    Called for the first CUDA tensor, so that importing this module neither imports NATTEN nor
    touches a GPU.
    """
    return _find_installation_problem()


@functools.cache
def _find_installation_problem() -> str | None:
    try:
        version = importlib.metadata.version('natten')
    except importlib.metadata.PackageNotFoundError:
        return 'NATTEN is not installed'
    numbers = re.match(r'(\d+)\.(\d+)', version)
    if numbers is None or tuple(map(int, numbers.groups())) < MINIMUM_VERSION:
        needed = '.'.join(map(str, MINIMUM_VERSION))
        return f'NATTEN >= {needed} is needed, {version} is installed'
    try:
        from natten import HAS_LIBNATTEN
    except Exception as error:  # a broken NATTEN must not break the others
        return f'NATTEN {version} cannot be imported: {error}'
    if not HAS_LIBNATTEN:
        return f'NATTEN {version} is installed without its CUDA kernels (libnatten)'
    return None


def unsupported_reasons(
    query: Tensor, bias: Tensor | None, kernel_size: tuple[int, int]
) -> list[str]:
    """Supports CUDA tensors in float16, bfloat16 and float32."""
    reasons = []
    if query.device.type != 'cuda':
        reasons.append(f'supports only CUDA tensors, got a tensor on {query.device.type}')
    elif (problem := installation_problem()) is not None:
        reasons.append(problem)
    if query.dtype == torch.float64:
        reasons.append('supports float16, bfloat16 and float32, got torch.float64')
    if min(kernel_size) < 2:
        reasons.append(f'kernel_size must be at least 2 on each axis, got {kernel_size}')
    return reasons


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size: tuple[int, int],
    dilation: tuple[int, int],
    scale: float,
) -> Tensor:
    """Runs the operator on checked arguments."""
    from natten import na2d

    head_dim = value.shape[-1]
    if bias is not None:
        query, key = fold_bias(
            query,
            key,
            bias,
            kernel_size=kernel_size,
            dilation=dilation,
            scale=scale,
            multiple_of=WIDTH_MULTIPLE,
        )
    query, key, value = (
        F.pad(tensor, (0, -tensor.shape[-1] % WIDTH_MULTIPLE)) for tensor in (query, key, value)
    )
    output = na2d(query, key, value, kernel_size=kernel_size, dilation=dilation, scale=scale)
    return output[..., :head_dim].contiguous()
