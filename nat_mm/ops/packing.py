"""Query, key and value as the three parts of one tensor, and their gradients likewise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def unpack(packed: Tensor) -> tuple[Tensor, ...]:
    """Returns views of query, key and value in the output of one linear layer.

    Equal to ``packed.unbind(3)``, except that the backward pass does not copy the three gradients
    if they already are slices of one tensor, as :mod:`nat_mm.ops.library`'s operators return them.

    Args:
        packed: [B, H, W, 3, heads, head_dim].

    Returns:
        Three views, [B, H, W, heads, head_dim].
    """
    # A compiled graph does copy them, since compilers and tracers cannot see into such a function.
    # One that torch.func supports would take several times as long, as PyTorch inspects the
    # signature of its ``forward`` in every call. Forward mode would need a formula of its own.
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or is_transformed():
        return packed.unbind(3)
    return _Unpack.apply(packed)


def empty_packed(query: Tensor) -> Tensor:
    """Allocates three tensors like ``query``, [B, H, W, heads, head_dim], side by side.

    Returns:
        [B, H, W, 3, heads, head_dim], contiguous.
    """
    batch, height, width, heads, head_dim = query.shape
    return query.new_empty((batch, height, width, 3, heads, head_dim))


class _Unpack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, packed: Tensor) -> tuple[Tensor, ...]:
        return packed.unbind(3)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        packed = grads[0]._base
        if packed is not None and _is_unbound(packed, grads):
            return packed
        return torch.stack(grads, 3)


def _is_unbound(packed: Tensor, grads: tuple[Tensor, ...]) -> bool:
    """Returns whether the gradients are ``packed.unbind(3)``."""
    shape, stride, offset = packed.shape, packed.stride(), packed.storage_offset()
    if len(shape) != 6 or shape[3] != len(grads):
        return False
    part_shape, part_stride = shape[:3] + shape[4:], stride[:3] + stride[4:]
    return all(
        grad._base is packed
        and grad.shape == part_shape
        and grad.stride() == part_stride
        and grad.storage_offset() == offset + number * stride[3]
        for number, grad in enumerate(grads)
    )


def is_transformed() -> bool:
    """Returns whether torch.func or forward-mode differentiation sees what runs now."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
