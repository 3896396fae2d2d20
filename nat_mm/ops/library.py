"""Registration of a backend's kernels with PyTorch's dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nat_mm.ops.autocast import cast_for_autocast

NAMESPACE = 'nat_mm'

ForwardKernel = Callable[
    [Tensor, Tensor, Tensor, Tensor | None, Sequence[int], Sequence[int], float], Tensor
]
BackwardKernel = Callable[
    [Tensor, Tensor, Tensor, Tensor, Tensor | None, Sequence[int], Sequence[int], float],
    tuple[Tensor, Tensor, Tensor, Tensor],
]


def define_operator(name: str, forward: ForwardKernel, backward: BackwardKernel) -> ForwardKernel:
    """Makes one differentiable, compilable, autocast-aware operator out of two kernels.

    Args:
        name: Name in PyTorch's ``nat_mm`` namespace.
        forward: ``(query, key, value, bias, kernel_size, dilation, scale) -> output``. The output
            is contiguous, of query's shape and element type.
        backward: ``(grad_output, query, key, value, bias, kernel_size, dilation, scale) ->
            (grad_query, grad_key, grad_value, grad_bias)``, all contiguous, in shape and element
            type of what they belong to; without bias grad_bias is an empty tensor. It may use
            nothing but its arguments, so that no attention weights are kept between the passes.

    Returns:
        The operator, with the arguments of ``forward``.
    """
    library = torch.library.Library(NAMESPACE, 'FRAGMENT')
    _LIBRARIES.append(library)
    options = 'int[] kernel_size, int[] dilation, float scale'
    tensors = 'Tensor query, Tensor key, Tensor value, Tensor? bias'
    library.define(f'{name}({tensors}, {options}) -> Tensor')
    library.define(
        f'{name}_backward(Tensor grad_output, {tensors}, {options}) '
        '-> (Tensor, Tensor, Tensor, Tensor)'
    )
    operator = getattr(torch.ops.nat_mm, name).default
    backward_operator = getattr(torch.ops.nat_mm, f'{name}_backward').default
    for device_key in ('CPU', 'CUDA', 'XPU', 'MPS'):
        library.impl(name, forward, device_key)
        library.impl(f'{name}_backward', backward, device_key)
    torch.library.register_fake(f'{NAMESPACE}::{name}', _fake_forward, lib=library)
    torch.library.register_fake(f'{NAMESPACE}::{name}_backward', _fake_backward, lib=library)

    def setup_context(ctx, inputs, output):
        query, key, value, bias, ctx.kernel_size, ctx.dilation, ctx.scale = inputs
        ctx.save_for_backward(query, key, value, bias)

    def differentiate(ctx, grad_output):
        # Read once: activation checkpointing refuses a second unpacking.
        query, key, value, bias = ctx.saved_tensors
        grads = backward_operator(
            grad_output, query, key, value, bias, ctx.kernel_size, ctx.dilation, ctx.scale
        )
        return *grads[:3], None if bias is None else grads[3], None, None, None

    torch.library.register_autograd(
        f'{NAMESPACE}::{name}', differentiate, setup_context=setup_context, lib=library
    )

    def refuse(ctx, *grads):
        raise NotImplementedError(
            f'{NAMESPACE}::{name} has no second derivative; use backend="reference" for it'
        )

    torch.library.register_autograd(f'{NAMESPACE}::{name}_backward', refuse, lib=library)

    def autocast(device_key):
        excluded = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, device_key))

        def kernel(query, key, value, *rest):
            query, key, value = cast_for_autocast(query, key, value)
            with torch._C._ExcludeDispatchKeyGuard(excluded):
                return operator(query, key, value, *rest)

        return kernel

    for device_key in ('AutocastCPU', 'AutocastCUDA'):
        library.impl(name, autocast(device_key), device_key)
    return operator


def _fake_forward(query, key, value, bias, kernel_size, dilation, scale):
    return torch.empty_like(query, memory_format=torch.contiguous_format)


def _fake_backward(grad_output, query, key, value, bias, kernel_size, dilation, scale):
    grads = [
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for tensor in (query, key, value)
    ]
    return *grads, query.new_empty(0) if bias is None else torch.empty_like(bias)


# Registrations end with their Library object, so these must outlive this function.
_LIBRARIES: list[torch.library.Library] = []
