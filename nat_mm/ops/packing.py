"""Query, key and value as slices of one tensor, in both directions."""

from __future__ import annotations

import torch
from torch import Tensor


def unpack(packed: Tensor) -> tuple[Tensor, ...]:
    """Views of query, key and value in what one linear layer made.

    Equal to ``packed.unbind(3)``, but where the three gradients are slices of one tensor already,
    as :mod:`nat_mm.ops.library`'s operators return them, backward does not copy them.

    Args:
        packed: [B, H, W, 3, heads, head_dim].

    Returns:
        Three views, [B, H, W, heads, head_dim].
    """
    # A compiler sees through the copy, and a trace cannot look into a function of Python's.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return packed.unbind(3)
    return _Unpack.apply(packed)


def empty_packed(query: Tensor) -> Tensor:
    """Memory for three tensors like ``query``, [B, H, W, heads, head_dim], side by side.

    Returns:
        [B, H, W, 3, heads, head_dim], contiguous.
    """
    batch, height, width, heads, head_dim = query.shape
    return query.new_empty((batch, height, width, 3, heads, head_dim))


class _Unpack(torch.autograd.Function):
    @staticmethod
    def forward(packed):
        return packed.unbind(3)

    @staticmethod
    def setup_context(ctx, inputs, output):  # torch.func asks for it
        pass

    @staticmethod
    def backward(ctx, *grads):
        packed = grads[0]._base
        if packed is not None and _is_unbound(packed, grads):
            return packed
        return torch.stack(grads, 3)


def _is_unbound(packed: Tensor, grads: tuple[Tensor, ...]) -> bool:
    """Whether the gradients are ``packed.unbind(3)``."""
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
