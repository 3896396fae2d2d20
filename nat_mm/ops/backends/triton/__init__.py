"""Fused Triton kernels for NVIDIA and AMD GPUs, forward and backward.

They need only the Triton that comes with PyTorch. If the environment variable TRITON_INTERPRET is 1
before the first use, Triton runs them on CPU tensors, slowly, for tests.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import nat_mm_startup
from nat_mm.ops.library import assume_constant_result, define_operator

MAXIMUM_KERNEL_SIZE = 13
MAXIMUM_HEAD_DIM = 128
MAXIMUM_IMAGE_SIZE = 2**31 - 1
"""Most elements of query, key or value per image: kernels compute offsets in 32 bits."""
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@assume_constant_result
def installation_problem() -> str | None:
    """Returns why Triton cannot be used, or None if it can.

    The compiler treats the result as a constant, since PyTorch 2.9 to 2.11 cannot trace the lookup.
    """
    return _find_installation_problem()


@functools.cache
def _find_installation_problem() -> str | None:
    if importlib.util.find_spec('triton') is None:
        return 'triton is not installed (it comes with PyTorch for GPUs on Linux)'
    return None


def unsupported_reasons(
    query: Tensor, bias: Tensor | None, kernel_size: tuple[int, int]
) -> list[str]:
    """Supports GPU tensors in float16, bfloat16 and float32, with head dimensions up to 128."""
    reasons = []
    if (problem := installation_problem()) is not None:
        reasons.append(problem)
    if query.device.type != 'cuda' and not _is_interpreted(query):
        reasons.append(f'supports only GPU tensors, got a tensor on {query.device.type}')
    if query.dtype not in _DTYPES:
        reasons.append(f'supports float16, bfloat16 and float32, got {query.dtype}')
    if not 1 <= query.shape[-1] <= MAXIMUM_HEAD_DIM:
        reasons.append(f'head_dim must be from 1 to {MAXIMUM_HEAD_DIM}, got {query.shape[-1]}')
    if (size := math.prod(query.shape[1:])) > MAXIMUM_IMAGE_SIZE:
        reasons.append(
            f'query must have at most {MAXIMUM_IMAGE_SIZE} numbers per image, got {size}'
        )
    if max(kernel_size) > MAXIMUM_KERNEL_SIZE:
        reasons.append(f'kernel_size must be at most {MAXIMUM_KERNEL_SIZE}, got {kernel_size}')
    return reasons


def _is_interpreted(query: Tensor) -> bool:
    return query.device.type == 'cpu' and os.environ.get('TRITON_INTERPRET') == '1'


def statistics_per_query(dtype: torch.dtype) -> int:
    """Returns how many numbers per query the forward kernel keeps for the backward kernels."""
    return 2 if dtype == torch.float32 else 1


@functools.cache
def _kernels() -> ModuleType:
    """Imports Triton on first use."""
    return importlib.import_module('nat_mm.ops.backends.triton.launch')


def _forward_kernel(*arguments: Any) -> Any:
    return _kernels().run_forward(*arguments)


def _backward_kernel(*arguments: Any) -> Any:
    return _kernels().run_backward(*arguments)


def _traced_forward(*arguments: Any) -> Any:
    kernels = _kernels()
    return kernels.run_forward(*arguments, traced=True) if kernels.is_traceable() else None


def _traced_backward(*arguments: Any) -> Any:
    kernels = _kernels()
    return kernels.run_backward(*arguments, traced=True) if kernels.is_traceable() else None


def _source_of_kernels(_: object) -> None:
    """Lets PyTorch's cache of compiled graphs see when a kernel changes.

    The cache looks up graphs in which the operator is still a single call.
    """
    if installation_problem() is None and _kernels().is_traceable():
        torch._library.triton.triton_ops_to_kernels['nat_mm::na2d_triton'] = [
            *_kernels().KERNELS.values()
        ]


nat_mm_startup.when_imported('torch._functorch._aot_autograd.autograd_cache', _source_of_kernels)

forward = define_operator(
    'na2d_triton',
    _forward_kernel,
    _backward_kernel,
    devices=('CPU', 'CUDA'),
    keeps_output=True,
    statistics=statistics_per_query,
    traced=(_traced_forward, _traced_backward),
)
