"""Makes Triton's interpreter quicker, and lets it run kernels that PyTorch traces."""

import dataclasses
import functools
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from packaging.version import Version


@contextmanager
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


def interpret_launches() -> None:
    """Makes kernels that Triton would compile run in its interpreter, for the rest of the process.

    Unlike with TRITON_INTERPRET=1, PyTorch can trace their launches.
    """
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.runtime import interpreter
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    from nat_mm.ops.backends import triton as backend

    class Driver:
        get_current_device = get_current_stream = get_benchmarker = lambda *_: 0

        def get_current_target(self):
            return GPUTarget('cuda', 80, 32)

    def launch(kernel, *arguments, grid, warmup, **options):
        scope = interpreter._patch_lang(tl.cdiv.fn)  # Triton's own functions use its core
        try:
            function = interpreter.InterpretedFunction(kernel.fn)
            function.run(*arguments, grid=grid, warmup=warmup, **options)
        finally:
            if scope is not None:  # Triton 3.5 patches for good
                scope.restore()

    def call(function, *arguments, **options):
        return interpreter.InterpretedFunction(function.fn).rewrite()(*arguments, **options)

    driver.set_active(Driver())
    JITFunction.run = launch
    JITFunction.__call__ = call
    backend._is_interpreted = lambda query: query.device.type == 'cpu'
