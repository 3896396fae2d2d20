"""Settings for the tests of the kernels."""

import dataclasses
import functools
import importlib.util
from collections.abc import Iterator

import pytest
import torch
from packaging.version import Version

from nat_mm.ops.backends import cpu
from tests.ops.kernel import AVAILABLE, PROBLEM


@pytest.fixture(params=['avx512', 'avx2', 'neon', 'generic'])
def instruction_set(request, monkeypatch):
    """Forces each available instruction set in turn."""
    if request.param not in AVAILABLE:
        pytest.skip(PROBLEM or f'this machine has no {request.param}')
    monkeypatch.setenv(cpu.ISA_VARIABLE, request.param)
    return request.param


@pytest.fixture
def poisoned_memory():
    """Makes PyTorch fill new memory with NaN, so that elements never written are noticed."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def set_threads():
    """``torch.set_num_threads``, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope='session', autouse=True)
def quick_interpreter() -> Iterator[None]:
    """Skips work of Triton's interpreter that has no effect but takes two thirds of its time.

    The interpreter recomputes sums and products of integers in 64 bits for checks that run only
    when debugging. It replaces Triton's functions at each call of a function by a kernel, not only
    the first, and rebuilds the same table of types for each operation.
    """
    if importlib.util.find_spec('triton') is None:
        yield
        return
    import triton
    import triton.language as tl
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    assert not builder.options.debug
    options = dataclasses.replace(builder.options, sanitize_overflow=False)
    find_type = interpreter._get_np_dtype
    find_scalar_type = functools.cache(find_type)

    def find_type_once(dtype):
        is_pointer = isinstance(dtype, tl.pointer_type)
        return find_type(dtype) if is_pointer else find_scalar_type(dtype.scalar)

    call_first = interpreter.InterpretedFunction.__call__
    known = set()

    def call_device_function(function, *arguments, **constants):
        if function in known:
            return function.rewrite()(*arguments, **constants)
        known.add(function)
        return call_first(function, *arguments, **constants)

    patch_tensor = interpreter._patch_lang_tensor

    def patch_tensor_and_index(tensor, *scope):
        patch_tensor(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    with pytest.MonkeyPatch.context() as patch:
        # Before 3.8, the scalars are arrays of one element, which NumPy 2.4 rejects as integers.
        if Version(triton.__version__) < Version('3.8'):
            patch.setattr(interpreter, '_patch_lang_tensor', patch_tensor_and_index)
        patch.setattr(builder, 'options', options)
        patch.setattr(interpreter, '_get_np_dtype', find_type_once)
        patch.setattr(interpreter.InterpretedFunction, '__call__', call_device_function)
        yield
