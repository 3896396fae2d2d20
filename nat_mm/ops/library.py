"""Registers a backend's kernels with PyTorch's dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor, FunctionalTensorMode
from torch.autograd import forward_ad

import nat_mm_startup
from nat_mm.ops.packing import empty_packed

NAMESPACE = 'nat_mm'

OPERATORS: list[str] = []
"""Names of the operators in the namespace, filled by `define_operator`."""

ForwardKernel = Callable[
    [Tensor, Tensor, Tensor, Tensor | None, Sequence[int], Sequence[int], float],
    tuple[Tensor, Tensor],
]
BackwardKernel = Callable[..., tuple[Tensor, Tensor]]
Operator = Callable[
    [Tensor, Tensor, Tensor, Tensor | None, Sequence[int], Sequence[int], float], Tensor
]


def assume_constant_result(function: Callable[[], str | None]) -> Callable[[], str | None]:
    """Like :func:`torch.compiler.assume_constant_result`, without importing the compiler.

    That import takes 1.5 seconds, so the function is marked only once something else imports the
    compiler, as every compilation does.
    """

    def mark(_: object) -> None:
        torch.compiler.assume_constant_result(function)

    nat_mm_startup.when_imported('torch._dynamo', mark)
    return function


def define_operator(
    name: str,
    forward: ForwardKernel,
    backward: BackwardKernel,
    *,
    devices: Sequence[str],
    keeps_output: bool = False,
    statistics: Callable[[torch.dtype], int] | None = None,
    traced: tuple[Callable[..., Any], Callable[..., Any]] | None = None,
) -> Operator:
    """Makes a differentiable, compilable operator from a forward and a backward kernel.

    The kernels run with autocast off: :func:`nat_mm.ops.neighborhood_attention_2d` has already cast
    their arguments, since it needs the dtype to choose a backend.

    Args:
        name: Name in PyTorch's ``nat_mm`` namespace.
        forward: ``(query, key, value, bias, kernel_size, dilation, scale) -> (output,
            statistics)``. The output is contiguous, with query's shape and dtype. The statistics
            summarize each query's scores for the backward pass, float32
            [numbers, B, H, W, heads].
        backward: ``(grad_output, query, key, value, bias, output, statistics, kernel_size,
            dilation, scale) -> (grads, grad_bias)``. The gradients of query, key and value are one
            contiguous tensor, [B, H, W, 3, heads, head_dim], with query's dtype; grad_bias is
            contiguous, with bias's shape and dtype, or empty without bias. Output and statistics
            are None unless they are kept. It depends only on its arguments, so no attention weights
            are stored between the passes.
        devices: PyTorch's dispatch keys of the devices on which the kernels run.
        keeps_output: Whether to keep the output for the backward pass.
        statistics: Returns how many numbers per query to keep for the backward pass, given query's
            dtype; by default none.
        traced: Like ``forward`` and ``backward``, but made of PyTorch's operators and of kernels in
            ``torch.library.wrap_triton``, which torch.compile then launches without the operator.
            A function may return None to leave the operator in the graph.

    Returns:
        The operator, with the arguments of ``forward``; it returns only the output.
    """
    library = torch.library.Library(NAMESPACE, 'FRAGMENT')
    _LIBRARIES.append(library)
    OPERATORS.append(name)
    options = 'int[] kernel_size, int[] dilation, float scale'
    tensors = 'Tensor query, Tensor key, Tensor value, Tensor? bias'
    library.define(f'{name}({tensors}, {options}) -> (Tensor, Tensor)')
    library.define(
        f'{name}_backward(Tensor grad_output, {tensors}, Tensor? output, Tensor? statistics, '
        f'{options}) -> (Tensor, Tensor)'
    )
    operator = getattr(torch.ops.nat_mm, name).default
    backward_operator = getattr(torch.ops.nat_mm, f'{name}_backward').default

    def fake_forward(query: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        output = torch.empty_like(query, memory_format=torch.contiguous_format)
        shape = (statistics(query.dtype) if statistics else 0, *query.shape[:4])
        return output, query.new_empty(shape, dtype=torch.float32)

    traced_forward, traced_backward = traced or (None, None)
    _register(operator, forward, fake_forward, traced_forward, devices, library)
    _register(backward_operator, backward, _fake_backward, traced_backward, devices, library)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        query, key, value, bias, ctx.kernel_size, ctx.dilation, ctx.scale = inputs
        ctx.save_for_backward(
            query,
            key,
            value,
            bias,
            output[0] if keeps_output else None,
            output[1] if statistics else None,
        )

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        keep(ctx, inputs, output)
        ctx.mark_non_differentiable(output[1])

    def differentiate(ctx: Any, grad_output: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        if forward_ad._current_level >= 0:
            raise NotImplementedError(
                f'{NAMESPACE}::{name}_backward has no forward-mode derivative; '
                'use backend="reference" for it'
            )
        # Read only once, as activation checkpointing rejects a second unpacking.
        saved = ctx.saved_tensors
        arguments = (grad_output, *saved, ctx.kernel_size, ctx.dilation, ctx.scale)
        # For a second derivative, autograd has to see the operator, which rejects it; for batched
        # gradients (is_grads_batched), PyTorch's loop over them has to.
        if (
            torch.is_grad_enabled()
            or is_legacy_batchedtensor(grad_output)
            or not _is_plain(grad_output, saved[0])
        ):
            grads, grad_bias = backward_operator(*arguments)
        else:
            grads, grad_bias = _alone(backward, *arguments)
        return *grads.unbind(3), None if saved[3] is None else grad_bias, None, None, None

    torch.library.register_autograd(
        f'{NAMESPACE}::{name}', differentiate, setup_context=setup_context, lib=library
    )

    def refuse(ctx: Any, *grads: Tensor) -> None:
        raise NotImplementedError(
            f'{NAMESPACE}::{name} has no second derivative; use backend="reference" for it'
        )

    torch.library.register_autograd(f'{NAMESPACE}::{name}_backward', refuse, lib=library)

    class Differentiable(torch.autograd.Function):
        """Does what ``register_autograd`` sets up, for :func:`_is_plain` calls."""

        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Tensor:
            output = _alone(forward, *inputs)
            keep(ctx, inputs, output)
            return output[0]

        backward = staticmethod(differentiate)

    def run(*arguments: Any) -> Tensor:
        tensors = arguments[:3] if arguments[3] is None else arguments[:4]
        if not _is_plain(*tensors):
            return operator(*arguments)[0]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            return Differentiable.apply(*arguments)
        return _alone(forward, *arguments)[0]

    return run


def _register(
    operator: torch._ops.OpOverload,
    kernel: Callable,
    fake: Callable,
    traced: Callable | None,
    devices: Sequence[str],
    library: torch.library.Library,
) -> None:
    """Registers what an operator does on devices, without data, in graphs and under autocast."""
    name = operator.name()
    for device_key in devices:
        library.impl(name, _without_tangents(kernel), device_key)
    torch.library.register_fake(name, fake, lib=library)
    if traced is not None:
        _decompose(operator, traced, library)
    for device_key in ('AutocastCPU', 'AutocastCUDA'):
        library.impl(name, _without_autocast(operator, device_key), device_key)


def _without_autocast(operator: torch._ops.OpOverload, device_key: str) -> Callable:
    """Returns a function that calls an operator below autocast."""
    excluded = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, device_key))

    def kernel(*arguments: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(excluded):
            return operator(*arguments)

    return kernel


def _without_tangents(kernel: Callable) -> Callable:
    """Makes a kernel refuse forward mode, in which PyTorch would silently drop the tangents."""

    def checked(*arguments: Any) -> Any:
        if forward_ad._current_level >= 0:
            raise NotImplementedError(
                f'the operators in torch.ops.{NAMESPACE} do not support forward mode '
                '(torch.func.jvp): call nat_mm.ops.neighborhood_attention_2d'
            )
        return kernel(*arguments)

    return checked


def _decompose(
    operator: torch._ops.OpOverload, function: Callable[..., Any], library: torch.library.Library
) -> None:
    """Replaces an operator by what a function does when torch.compile makes a graph.

    This is what ``torch.library.triton_op`` does. torch.export keeps the operator.
    """

    def dispatch(
        mode: FunctionalTensorMode,
        _: torch._ops.OpOverload,
        types: Sequence[type],
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        from torch._functorch import config  # only compilers import it

        if getattr(config, 'decompose_custom_triton_ops', False):
            if not all(issubclass(each, FakeTensor) or each in _TRACED_TYPES for each in types):
                return NotImplemented
            with mode:
                outputs = function(*arguments, **options)
            if outputs is not None:
                return outputs
        return mode.__torch_dispatch__(operator, types, arguments, options)

    torch.library.register_torch_dispatch(operator, FunctionalTensorMode, dispatch, lib=library)


def _is_plain(*tensors: Tensor) -> bool:
    """Returns whether only autograd needs to see the call, so kernels may be called directly.

    On small maps, PyTorch's dispatcher takes longer than the kernels. Compilers, tracers,
    ``torch.func``, modes, tensor subclasses and profilers need it.
    """
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd._profiler_enabled()
        or not (tensors[0].is_cpu or tensors[0].is_cuda)
        or not _PLAIN_TYPES.issuperset(map(type, tensors))
    )


def _alone(kernel: Callable, *arguments: Any) -> Any:
    """Calls a kernel with autograd and autocast off, as the dispatcher does."""
    with torch._C._AutoDispatchBelowAutograd(), torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
        return kernel(*arguments)


def _fake_backward(
    grad_output: Tensor, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor]:
    grads = empty_packed(query)
    return grads, query.new_empty(0) if bias is None else bias.new_empty(bias.shape)


_TRACED_TYPES = (Tensor, FunctionalTensor)
_PLAIN_TYPES = frozenset({Tensor, torch.nn.Parameter})
_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU) | torch._C.DispatchKeySet(
    torch._C.DispatchKey.AutocastCUDA
)

# A registration lasts only as long as its Library object, so these must stay alive.
_LIBRARIES: list[torch.library.Library] = []
