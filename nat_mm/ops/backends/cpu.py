"""Fused C++ kernel for CPU tensors, from the source in ``nat_mm/ops/csrc``.

The kernel is a shared library with a plain C interface (``csrc/na2d.h``). setup.py builds it if it
finds a compiler, and ctypes loads it for the first CPU tensor. It links to neither Python, PyTorch
nor OpenMP: each call passes it the function that starts PyTorch's own threads.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nat_mm.errors import UserError
from nat_mm.ops.library import assume_constant_result, define_operator
from nat_mm.ops.packing import empty_packed

LIBRARY = Path(__file__).with_name('libna2d.so')
"""The shared library that setup.py builds."""

ISA_VARIABLE = 'NAT_MM_CPU_ISA'
"""Environment variable that names the instruction set to use instead of the best one."""

MAXIMUM_KERNEL_SIZE = 13

# These numbers are defined in csrc/na2d.h.
_INTERFACE = 3
_INSTRUCTION_SETS = {'avx512': 2, 'avx2': 1, 'neon': 3, 'generic': 0}  # best first
_DTYPES = {torch.float32: 0, torch.bfloat16: 1}
_OUT_OF_MEMORY = 1


class _Tensor(ctypes.Structure):
    _fields_ = [('data', ctypes.c_void_p), ('stride', ctypes.c_int64 * 4)]


class _Problem(ctypes.Structure):
    _fields_ = [
        ('batch', ctypes.c_int64),
        ('height', ctypes.c_int64),
        ('width', ctypes.c_int64),
        ('heads', ctypes.c_int64),
        ('head_dim', ctypes.c_int64),
        ('kernel', ctypes.c_int64 * 2),
        ('dilation', ctypes.c_int64 * 2),
        ('scale', ctypes.c_double),
        ('dtype', ctypes.c_int32),
        ('isa', ctypes.c_int32),
        ('threads', ctypes.c_int32),
        ('parallel', ctypes.c_void_p),
    ]


@assume_constant_result
def installation_problem() -> str | None:
    """Returns why the kernel cannot be used, or None if it can."""
    return _find_installation_problem()


@functools.cache
def _find_installation_problem() -> str | None:
    if not LIBRARY.exists():
        return (
            f'the kernel was not built ({LIBRARY} is missing); '
            'install nat_mm again where there is a C++ compiler'
        )
    try:
        built = _library().na2d_interface()
        if built != _INTERFACE:
            return (
                f'{LIBRARY} has interface {built}, this version of nat_mm needs {_INTERFACE}; '
                'install nat_mm again'
            )
    except (OSError, AttributeError) as error:
        return f'the kernel cannot be loaded: {error}'
    return None


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(LIBRARY))
    problem, tensor = ctypes.POINTER(_Problem), ctypes.POINTER(_Tensor)
    floats = ctypes.c_void_p
    inputs: list[type] = [problem, tensor, tensor, tensor, floats]
    statistics: list[type] = [floats, floats]
    library.na2d_forward.argtypes = [*inputs, tensor, *statistics]
    library.na2d_backward.argtypes = [*inputs, *statistics, *[tensor] * 4, floats]
    functions = (
        library.na2d_interface,
        library.na2d_has_isa,
        library.na2d_forward,
        library.na2d_backward,
    )
    for function in functions:
        function.restype = ctypes.c_int32
    return library


@functools.cache
def available_instruction_sets() -> tuple[str, ...]:
    """Returns the instruction sets that both this machine and the kernel support, best first.

    Raises:
        OSError: If the kernel is missing or cannot be loaded.
    """
    has = _library().na2d_has_isa
    return tuple(name for name, number in _INSTRUCTION_SETS.items() if has(number))


def instruction_set() -> str:
    """Returns the instruction set to use: the environment's choice, or the best available one.

    Raises:
        OSError: If the kernel is missing or cannot be loaded.
        UserError: If the environment variable NAT_MM_CPU_ISA names one that is not available.
    """
    available = available_instruction_sets()
    name = os.environ.get(ISA_VARIABLE) or available[0]
    if name not in available:
        raise UserError(
            f'the environment variable {ISA_VARIABLE} must be one of {", ".join(available)} on '
            f'this machine, got {name!r}'
        )
    return name


@functools.cache
def _parallel() -> int | None:
    """Returns the address of GOMP_parallel in PyTorch's OpenMP runtime, or None if it has none.

    The runtimes of GCC, LLVM and Intel all have it. PyTorch's wheels bundle a runtime under various
    names (libgomp.so.1, libgomp-a49a47f9.so.1.0.0). Looking the symbol up through one of PyTorch's
    libraries finds that runtime whatever its name, and never a second one.
    """
    try:
        function = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (OSError, AttributeError):
        return None
    return ctypes.cast(function, ctypes.c_void_p).value


def thread_count() -> int:
    """Returns PyTorch's number of threads, but 1 in a forked process or without OpenMP.

    OpenMP's threads do not survive a fork, and its runtime would wait for them forever.
    """
    return 1 if _is_forked or _parallel() is None else torch.get_num_threads()


def _note_fork() -> None:
    global _is_forked
    _is_forked = True


_is_forked = False
os.register_at_fork(after_in_child=_note_fork)


def unsupported_reasons(
    query: Tensor, bias: Tensor | None, kernel_size: tuple[int, int]
) -> list[str]:
    """Supports float32 and bfloat16 CPU tensors whose head_dim is a multiple of 8."""
    reasons = []
    if query.device.type != 'cpu':
        reasons.append(f'supports only CPU tensors, got a tensor on {query.device.type}')
    elif (problem := installation_problem()) is not None:
        reasons.append(problem)
    if query.dtype not in _DTYPES:
        reasons.append(f'supports float32 and bfloat16, got {query.dtype}')
    if query.shape[-1] % 8 or query.shape[-1] == 0:
        reasons.append(f'head_dim must be a multiple of 8, got {query.shape[-1]}')
    if max(kernel_size) > MAXIMUM_KERNEL_SIZE:
        reasons.append(f'kernel_size must be at most {MAXIMUM_KERNEL_SIZE}, got {kernel_size}')
    return reasons


def _forward_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor]:
    query, key, value = map(_with_contiguous_channels, (query, key, value))
    bias = None if bias is None else bias.float().contiguous()
    output = torch.empty(query.shape, dtype=query.dtype)
    statistics = torch.empty((2, *query.shape[:4]), dtype=torch.float32)
    status = _library().na2d_forward(
        _problem(query, kernel_size, dilation, scale),
        *map(_strided, (query, key, value)),
        _address(bias),
        _strided(output),
        *map(_address, statistics),
    )
    _check(status)
    return output, statistics


def _backward_kernel(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    output: None,
    statistics: Tensor,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor]:
    inputs = [_with_contiguous_channels(tensor) for tensor in (query, key, value, grad_output)]
    table = None if bias is None else bias.float().contiguous()
    statistics = statistics.contiguous()
    grads = empty_packed(query)
    grad_table = None if table is None else torch.empty_like(table)
    *projections, grad_out = map(_strided, inputs)
    status = _library().na2d_backward(
        _problem(inputs[0], kernel_size, dilation, scale),
        *projections,
        _address(table),
        *map(_address, statistics),
        grad_out,
        *map(_strided, grads.unbind(3)),
        _address(grad_table),
    )
    _check(status)
    if bias is None or grad_table is None:
        return grads, grads.new_empty(0)
    return grads, grad_table.to(bias.dtype)


forward = define_operator(
    'na2d_cpu', _forward_kernel, _backward_kernel, devices=('CPU',), statistics=lambda dtype: 2
)


def _with_contiguous_channels(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _problem(
    query: Tensor, kernel_size: Sequence[int], dilation: Sequence[int], scale: float
) -> _Problem:
    return _Problem(
        *query.shape,
        (ctypes.c_int64 * 2)(*kernel_size),
        (ctypes.c_int64 * 2)(*dilation),
        scale,
        _DTYPES[query.dtype],
        _INSTRUCTION_SETS[instruction_set()],
        thread_count(),
        _parallel(),
    )


def _strided(tensor: Tensor) -> _Tensor:
    return _Tensor(tensor.data_ptr(), (ctypes.c_int64 * 4)(*tensor.stride()[:4]))


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _check(status: int) -> None:
    if status == _OUT_OF_MEMORY:
        raise MemoryError('no memory for the working space of neighborhood attention')
    if status != 0:
        raise RuntimeError(f'the kernel of neighborhood attention failed with status {status}')
