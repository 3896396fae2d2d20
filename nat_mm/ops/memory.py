"""What training keeps in memory between forward and backward.

*Recomputation.* A linear layer keeps its input for backward. Where that is just a norm or an
activation of a tensor that is kept anyway, backward can compute it again. `recomputable` attaches
a recipe to such a result; in methods decorated with `recompute_in_backward`, autograd keeps the
recipe instead. Values and gradients stay the same. One switch: on for CPU tensors, off on
other devices, where it costs more time than it is worth. ``NAT_MM_RECOMPUTE=1`` in the environment
turns it on everywhere, ``NAT_MM_RECOMPUTE=0`` off.

*Pieces.* `split_tokens` cuts large maps, so that a function of single tokens works in the caches.

*Packing.* `unpack` passes the gradients of query, key and value on to the linear layer that made
all three, without a copy.

``torch.utils.checkpoint`` can recompute too, but it takes the norm and the linear layer as one
function, so ``attn(norm(x))`` could not be written that way, and costs about 0.2 ms of Python per
call in forward and more in backward.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from nat_mm.ops.validation import autocast_dtype, cast_for_autocast

VARIABLE = 'NAT_MM_RECOMPUTE'

LARGEST_BYTES = 32 * 2**20
"""Maps above this are split. The GNU C library takes larger ones from the operating system each
time, which clears every page first: at the widths of a first stage that costs more than a linear
layer."""

PIECE_BYTES = 2 * 2**20
"""Size of a piece: fits in the caches, and is enough work for a matrix product on every core."""

Module = TypeVar('Module', bound=nn.Module)
Function = Callable[[Tensor], Tensor]


def read_setting() -> bool | None:
    """Reads the switch from the environment; None for the device's default.

    Raises:
        ValueError: If the variable is neither '0' nor '1'.
    """
    value = os.environ.get(VARIABLE)
    if value not in (None, '0', '1'):
        raise ValueError(f"{VARIABLE} must be '0' or '1', got {value!r}")
    return None if value is None else value == '1'


_SETTING = read_setting()


def _is_on(x: Tensor) -> bool:
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return x.device.type == 'cpu' if _SETTING is None else _SETTING


def _recomputes(x: Tensor) -> bool:
    # torch.func refuses hooks on saved tensors.
    return _is_on(x) and torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active()


def recomputable(function: Function, x: Tensor) -> Tensor:
    """Applies a cheap function whose result need not be kept for backward.

    Args:
        function: A norm, an activation or the like, without randomness.
        x: Its input, of any shape; kept, or recomputable itself.

    Returns:
        ``function(x)``, under autocast in autocast's dtype.
    """
    if not _recomputes(x):
        return function(x)
    result = function(x)
    if result is not x:
        # Otherwise the linear layer that comes next would make, and keep, a copy of its own.
        (result,) = cast_for_autocast(result)
        _set_recipe(result, _Recipe(function, getattr(x, '_recipe', x), result))
    return result


def recompute_in_backward(
    forward: Callable[[Module, Tensor], Tensor],
) -> Callable[[Module, Tensor], Tensor]:
    """Makes a module's ``forward`` keep no `recomputable` result for backward."""

    @functools.wraps(forward)
    def wrapper(self: Module, x: Tensor) -> Tensor:
        if not _recomputes(x):
            return forward(self, x)
        # Whoever saves tensors in a way of their own, as activation checkpointing does, goes on
        # doing so with all that is still kept.
        outer = torch._C._autograd._top_saved_tensors_default_hooks(False)
        pack, unpack = (_same, _same) if outer is None else outer
        with saved_tensors_hooks(*_hooks(pack, unpack)):
            return forward(self, x)

    return wrapper


def _same(x: Any) -> Any:
    return x


def _hooks(
    pack: Callable[[Tensor], Any], unpack: Callable[[Any], Tensor]
) -> tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]:
    """Hooks that save recipes in place of recomputable results, and the rest with given hooks."""

    def pack_recipe(tensor: Tensor) -> Any:
        recipe = _find_recipe(tensor)
        if recipe is None:
            return pack(tensor)
        recipe.keep_source(pack, unpack)
        return recipe, tensor.shape

    def unpack_recipe(saved: Any) -> Tensor:
        if isinstance(saved, tuple) and isinstance(saved[0], _Recipe):
            recipe, shape = saved
            return recipe.take_result().view(shape)
        return unpack(saved)

    return pack_recipe, unpack_recipe


def _set_recipe(tensor: Any, recipe: _Recipe) -> None:
    tensor._recipe = recipe


def _find_recipe(tensor: Tensor) -> _Recipe | None:
    """The recipe of a tensor, or of the one that it is all of in another shape."""
    recipe = getattr(tensor, '_recipe', None)
    if recipe is None and (base := tensor._base) is not None:
        if base.numel() == tensor.numel() and base.is_contiguous() and tensor.is_contiguous():
            recipe = getattr(base, '_recipe', None)
    return recipe


class _Recipe:
    """How to make a result again.

    Args:
        function: What makes it.
        source: What it is made of: a tensor, or the recipe of one.
        result: The result, for its dtype and device.
    """

    def __init__(self, function: Function, source: Tensor | _Recipe, result: Tensor) -> None:
        self.function = function
        self.source: Any = source
        self.dtype = result.dtype
        self.unpack: Callable[[Any], Tensor] = _same
        self.is_kept = False
        self.result: Tensor | None = None
        device = result.device.type
        dtype = autocast_dtype(device)
        self.autocast: AbstractContextManager = (
            nullcontext() if dtype is None else torch.autocast(device, dtype)
        )

    def keep_source(self, pack: Callable[[Tensor], Any], unpack: Callable[[Any], Tensor]) -> None:
        """Saves the source for backward, the first time."""
        if isinstance(self.source, _Recipe):
            self.source.keep_source(pack, unpack)
        elif not self.is_kept:
            self.source, self.unpack, self.is_kept = pack(self.source), unpack, True

    def take_result(self) -> Tensor:
        """Makes the result, unless that has been done for another that is made of it."""
        result, self.result = self._make(), None
        return result

    def _make(self) -> Tensor:
        if self.result is None:
            is_recipe = isinstance(self.source, _Recipe)
            source = self.source._make() if is_recipe else self.unpack(self.source)
            with torch.no_grad(), self.autocast:
                self.result = self.function(source).to(self.dtype)
        return self.result


class LayerNorm(nn.LayerNorm):
    """LayerNorm whose result need not be kept for backward."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes the last axis."""
        return recomputable(super().forward, x)


class GELU(nn.GELU):
    """GELU whose result need not be kept for backward."""

    def forward(self, x: Tensor) -> Tensor:
        """Applies the activation to each element."""
        return recomputable(super().forward, x)


def split_tokens(x: Tensor, channels: int) -> tuple[Tensor, ...]:
    """Splits a map whose tokens are about to be widened.

    Args:
        x: Map, ``[..., C]``.
        channels: Number of channels that each token is about to get.

    Returns:
        Tokens in order, ``[tokens, C]`` each; ``x`` itself alone where nothing is gained: on other
        devices, if all widened tokens need at most ``LARGEST_BYTES``, and in a traced or compiled
        graph, which must serve maps of any size.
    """
    token_bytes = channels * x.element_size()
    if x.device.type != 'cpu' or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return (x,)
    if x.shape[:-1].numel() * token_bytes <= LARGEST_BYTES:
        return (x,)
    tokens = max(1, PIECE_BYTES // token_bytes)
    pieces = x.flatten(0, -2).split(tokens)
    recipe = getattr(x, '_recipe', None)
    if recipe is not None and isinstance(recipe.source, Tensor):
        sources = recipe.source.flatten(0, -2).split(tokens)
        for piece, source in zip(pieces, sources, strict=True):
            _set_recipe(piece, _Recipe(recipe.function, source, piece))
    return pieces


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
    def forward(packed: Tensor) -> tuple[Tensor, ...]:
        return packed.unbind(3)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:  # torch.func asks for it
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
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
