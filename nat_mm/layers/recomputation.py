"""Reduces the memory that training needs between the forward and backward passes.

*Recomputation.* A linear layer keeps its input for the backward pass. If that input is merely a
norm or an activation of a tensor that is kept anyway, the backward pass can recompute it.
`recomputable` attaches a recipe to such a result; in methods decorated with
`recompute_in_backward`, autograd keeps the recipe instead of the result. Values and gradients are
unchanged. A result that is modified in place, by a hook or an in-place dropout, is kept after all.
Recomputation is on for CPU tensors and off for other devices, where the time it costs outweighs the
memory it saves. The environment variable ``NAT_MM_RECOMPUTE`` overrides this: 1 turns it on
everywhere, 0 turns it off.

*Splitting.* `split_tokens` splits large maps, so that a token-wise function works within the
caches.

``torch.utils.checkpoint`` can recompute as well, but it needs the norm and the linear layer in a
single function, which rules out ``attn(norm(x))``. It also costs about 0.2 ms of Python per call in
the forward pass and more in the backward pass.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from nat_mm.ops.environment import read_flag
from nat_mm.ops.packing import is_transformed
from nat_mm.ops.validation import autocast_dtype, cast_for_autocast

LARGEST_BYTES = 32 * 2**20
"""Maps larger than this are split.

The GNU C library requests larger allocations from the operating system every time, which clears
each page first; at a first stage's widths, that costs more than a linear layer."""

PIECE_BYTES = 2 * 2**20
"""Size of a piece: fits in the caches, yet is enough work for a matrix product on every core."""

Module = TypeVar('Module', bound=nn.Module)
Function = Callable[[Tensor], Tensor]


@functools.cache
def _setting() -> bool | None:
    return read_flag('NAT_MM_RECOMPUTE')


def _is_on(x: Tensor) -> bool:
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    setting = _setting()
    return x.device.type == 'cpu' if setting is None else setting


def _recomputes(x: Tensor) -> bool:
    # torch.func rejects hooks on saved tensors, and recomputed results have no tangents.
    return torch.is_grad_enabled() and _is_on(x) and not is_transformed()


def recomputable(function: Function, x: Tensor) -> Tensor:
    """Applies a cheap function whose result need not be kept for the backward pass.

    Args:
        function: A norm, an activation or similar, without randomness.
        x: Its input, of any shape; either kept or itself recomputable.

    Returns:
        ``function(x)``, under autocast in autocast's dtype.
    """
    if not _recomputes(x):
        return function(x)
    result = function(x)
    if result is not x:
        # Otherwise the next linear layer would make and keep its own copy.
        (result,) = cast_for_autocast(result)
        _set_recipe(result, _Recipe(function, _own_recipe(x) or x, result))
    return result


def recompute_in_backward(
    forward: Callable[[Module, Tensor], Tensor],
) -> Callable[[Module, Tensor], Tensor]:
    """Makes a module's ``forward`` keep recipes instead of `recomputable` results."""

    @functools.wraps(forward)
    def wrapper(self: Module, x: Tensor) -> Tensor:
        if not _recomputes(x):
            return forward(self, x)
        # Hooks that are already active, such as activation checkpointing's, still handle whatever
        # is kept.
        outer = _outer_hooks()
        pack, unpack = (_keep, _take) if outer is None else outer
        with saved_tensors_hooks(_Pack(pack, unpack, outer), functools.partial(_unpack, unpack)):
            return forward(self, x)

    return wrapper


def _outer_hooks() -> Any:
    """Returns the active pair of hooks on saved tensors that is not this module's, or None."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
    return hooks[0].outer if hooks is not None and isinstance(hooks[0], _Pack) else hooks


def _keep(tensor: Tensor) -> tuple[Tensor, int]:
    return tensor, _version(tensor)


def _take(saved: tuple[Tensor, int]) -> Tensor:
    """Checks what autograd itself checks where there are no hooks on saved tensors."""
    tensor, version = saved
    if _version(tensor) != version:
        raise RuntimeError(
            'one of the variables needed for gradient computation has been modified by an inplace '
            f'operation: [{tensor.type()} {list(tensor.shape)}] is at version {_version(tensor)}; '
            f'expected version {version} instead'
        )
    return tensor


def _version(tensor: Tensor) -> int:
    """Returns how often a tensor has been modified in place."""
    return 0 if tensor.is_inference() else tensor._version  # inference tensors do not count


class _Pack:
    """Saves recipes for recomputable results; the given hooks save the rest.

    Args:
        pack: Saves a tensor.
        unpack: Returns what ``pack`` saved.
        outer: The hooks that were active before, or None.
    """

    def __init__(
        self, pack: Callable[[Tensor], Any], unpack: Callable[[Any], Tensor], outer: Any
    ) -> None:
        self.pack = pack
        self.unpack = unpack
        self.outer = outer

    def __call__(self, tensor: Tensor) -> Any:
        recipe = _find_recipe(tensor)
        if recipe is None:
            return self.pack(tensor)
        recipe.keep(self.pack, self.unpack)
        return recipe, tensor.shape


def _unpack(unpack: Callable[[Any], Tensor], saved: Any) -> Tensor:
    if isinstance(saved, tuple) and isinstance(saved[0], _Recipe):
        recipe, shape = saved
        return recipe.take().view(shape)
    return unpack(saved)


def _set_recipe(tensor: Any, recipe: _Recipe) -> None:
    tensor._recipe = recipe


def _own_recipe(tensor: Tensor) -> _Recipe | None:
    """Returns a tensor's recipe if that still describes it."""
    recipe = getattr(tensor, '_recipe', None)
    return recipe if isinstance(recipe, _Recipe) and recipe.describes(tensor) else None


def _find_recipe(tensor: Tensor) -> _Recipe | None:
    """Returns the recipe of a tensor, or of the tensor that it is a reshaped view of."""
    recipe = _own_recipe(tensor)
    if recipe is None and (base := tensor._base) is not None:
        if base.numel() == tensor.numel() and base.is_contiguous() and tensor.is_contiguous():
            recipe = _own_recipe(base)
    return recipe


class _Recipe:
    """Recomputes a result.

    Args:
        function: Computes the result.
        source: The function's input: a tensor, or the recipe of one.
        result: The result; only its dtype, device and version are used.
    """

    def __init__(self, function: Function, source: Tensor | _Recipe, result: Tensor) -> None:
        self.function = function
        self.source: Any = source
        self.source_version = 0 if isinstance(source, _Recipe) else _version(source)
        self.version = _version(result)
        self.hooks = _outer_hooks()
        self.dtype = result.dtype
        self.unpack: Callable[[Any], Tensor] = _take
        self.uses = 0
        self.taken = 0
        self.result: Tensor | None = None
        device = result.device.type
        dtype = autocast_dtype(device)
        self.autocast: AbstractContextManager = (
            nullcontext() if dtype is None else torch.autocast(device, dtype)
        )

    def describes(self, result: Tensor) -> bool:
        """Returns whether recomputing gives the result as it is now, from tensors saved alike.

        Activation checkpointing of a module must save that module's input, not what it was made of.
        """
        is_unchanged = _version(result) == self.version and self._source_is_unchanged()
        return is_unchanged and self.hooks == _outer_hooks()

    def _source_is_unchanged(self) -> bool:
        if isinstance(self.source, _Recipe):
            return self.source._source_is_unchanged()
        return self.uses > 0 or _version(self.source) == self.source_version

    def keep(self, pack: Callable[[Tensor], Any], unpack: Callable[[Any], Tensor]) -> None:
        """Saves the source for the backward pass, the first time it is called."""
        if self.uses == 0:
            if isinstance(self.source, _Recipe):
                self.source.keep(pack, unpack)
            else:
                self.source, self.unpack = pack(self.source), unpack
        self.uses += 1

    def take(self) -> Tensor:
        """Returns the result, computing it for the first of its uses.

        Activation checkpointing rejects a second unpacking of the source.
        """
        if self.result is None:
            is_recipe = isinstance(self.source, _Recipe)
            source = self.source.take() if is_recipe else self.unpack(self.source)
            with torch.no_grad(), self.autocast:
                self.result = self.function(source).to(self.dtype)
        result = self.result
        self.taken = (self.taken + 1) % self.uses
        if self.taken == 0:
            self.result = None
        return result

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Leaves the recipe out of files: ``torch.load`` would refuse its module by default."""
        return OrderedDict, ()  # the simplest value that torch.load accepts


class LayerNorm(nn.LayerNorm):
    """LayerNorm whose result need not be kept for the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes the last axis."""
        if self._forward_pre_hooks:  # FSDP2's gather the weights, in the forward pass only
            return super().forward(x)
        return recomputable(super().forward, x)


class GELU(nn.GELU):
    """GELU whose result need not be kept for the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        """Applies the activation to each element."""
        return recomputable(super().forward, x)


def split_tokens(x: Tensor, channels: int) -> tuple[Tensor, ...]:
    """Splits a map before a layer that widens its tokens.

    Args:
        x: Map, ``[..., C]``.
        channels: Number of channels that the layer gives each token.

    Returns:
        Pieces ``[tokens, C]`` in order. Where splitting gains nothing, only ``x`` itself: on
        devices other than the CPU, if the widened tokens need at most ``LARGEST_BYTES``, and in a
        traced or compiled graph, which must work for maps of any size.
    """
    token_bytes = channels * x.element_size()
    if x.device.type != 'cpu' or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return (x,)
    if x.shape[:-1].numel() * token_bytes <= LARGEST_BYTES:
        return (x,)
    tokens = max(1, PIECE_BYTES // token_bytes)
    pieces = x.flatten(0, -2).split(tokens)
    recipe = _own_recipe(x)
    if recipe is not None and recipe.uses == 0 and isinstance(recipe.source, Tensor):
        sources = recipe.source.flatten(0, -2).split(tokens)
        for piece, source in zip(pieces, sources, strict=True):
            _set_recipe(piece, _Recipe(recipe.function, source, piece))
    return pieces
