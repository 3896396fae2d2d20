"""The functions and modules of NATTEN up to 0.17, which NATTEN 0.20 removed.

Replace ``from natten.functional import natten2dqkrpb, natten2dav`` with ``from
nat_mm.integrations.natten import natten2dqkrpb, natten2dav``. For code that cannot be changed, use
:func:`provide_natten`. The functions run on any device, forward and backward, with the argument
order, layouts and results of 0.17:

- For ``qk`` and ``av``, the heads come before the map: query, key and value are [B, heads, L, D] or
  [B, heads, H, W, D], attention weights [B, heads, L, k] or [B, heads, H, W, kh * kw].
- For the fused ``na1d`` and ``na2d``, the heads come after the map: [B, L, heads, D] or
  [B, H, W, heads, D].
- ``rpb`` is [heads, 2k - 1] or [heads, 2kh - 1, 2kw - 1].

Causal attention, additional keys and values, nested tensors and three dimensions are not supported.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import math
import sys
import types
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nat_mm.ops import neighborhood_attention_1d, neighborhood_attention_2d
from nat_mm.ops.unfused import neighbor_scores, neighbor_sums
from nat_mm.ops.validation import as_pair, check_dilation, check_kernel_size, check_tensors

Size = int | Sequence[int]
Sizes = tuple[int, ...]
Causal = bool | Sequence[bool] | None


def na2d_qk(
    query: Tensor,
    key: Tensor,
    kernel_size: Size,
    dilation: Size | None = 1,
    additional_keys: Tensor | None = None,
    is_causal: Causal = False,
    rpb: Tensor | None = None,
) -> Tensor:
    """Computes the scores of the neighbors on a map, [B, heads, H, W, kh * kw]; not scaled."""
    _refuse(is_causal=is_causal, additional_keys=additional_keys)
    return _scores(query, key, rpb, _of_map(kernel_size), _of_map(dilation))


def na2d_av(
    attn: Tensor,
    value: Tensor,
    kernel_size: Size,
    dilation: Size | None = 1,
    additional_values: Tensor | None = None,
    is_causal: Causal = False,
) -> Tensor:
    """Sums the neighbors' values by attention weights on a map, [B, heads, H, W, D]."""
    _refuse(is_causal=is_causal, additional_values=additional_values)
    return _sums(attn, value, _of_map(kernel_size), _of_map(dilation))


def na1d_qk(
    query: Tensor,
    key: Tensor,
    kernel_size: Size,
    dilation: Size | None = 1,
    additional_keys: Tensor | None = None,
    is_causal: Causal = False,
    rpb: Tensor | None = None,
) -> Tensor:
    """Computes the scores of the neighbors in a sequence, [B, heads, L, k]; not scaled."""
    _refuse(is_causal=is_causal, additional_keys=additional_keys)
    return _scores(query, key, rpb, _of_sequence(kernel_size), _of_sequence(dilation))


def na1d_av(
    attn: Tensor,
    value: Tensor,
    kernel_size: Size,
    dilation: Size | None = 1,
    additional_values: Tensor | None = None,
    is_causal: Causal = False,
) -> Tensor:
    """Sums the neighbors' values by attention weights in a sequence, [B, heads, L, D]."""
    _refuse(is_causal=is_causal, additional_values=additional_values)
    return _sums(attn, value, _of_sequence(kernel_size), _of_sequence(dilation))


def na2d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: Size,
    dilation: Size | None = 1,
    is_causal: Causal = False,
    rpb: Tensor | None = None,
    scale: float | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    xformers_kwargs: dict | None = None,
) -> Tensor:
    """Computes fused attention on a map, [B, H, W, heads, D], with nat_mm's operator."""
    _refuse(
        is_causal=is_causal, additional_keys=additional_keys, additional_values=additional_values
    )
    return neighborhood_attention_2d(
        query,
        key,
        value,
        kernel_size=_of_map(kernel_size),
        dilation=_of_map(dilation),
        bias=rpb,
        scale=scale or None,
    )


def na1d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: Size,
    dilation: Size | None = 1,
    is_causal: Causal = False,
    rpb: Tensor | None = None,
    scale: float | None = None,
    additional_keys: Tensor | None = None,
    additional_values: Tensor | None = None,
    xformers_kwargs: dict | None = None,
) -> Tensor:
    """Computes fused attention in a sequence, [B, L, heads, D], with nat_mm's operator."""
    _refuse(
        is_causal=is_causal, additional_keys=additional_keys, additional_values=additional_values
    )
    return neighborhood_attention_1d(
        query,
        key,
        value,
        kernel_size=_of_sequence(kernel_size)[0],
        dilation=_of_sequence(dilation)[0],
        bias=rpb,
        scale=scale or None,
    )


def natten2dqkrpb(
    query: Tensor, key: Tensor, rpb: Tensor | None, kernel_size: int, dilation: int
) -> Tensor:
    """:func:`na2d_qk` with the name and argument order of NATTEN 0.14."""
    return na2d_qk(query, key, kernel_size, dilation, rpb=rpb)


def natten1dqkrpb(
    query: Tensor, key: Tensor, rpb: Tensor | None, kernel_size: int, dilation: int
) -> Tensor:
    """:func:`na1d_qk` with the name and argument order of NATTEN 0.14."""
    return na1d_qk(query, key, kernel_size, dilation, rpb=rpb)


# NATTEN 0.14 had these with fewer arguments, in the same order.
natten2dqk, natten2dav = na2d_qk, na2d_av
natten1dqk, natten1dav = na1d_qk, na1d_av


def na3d(*_: Any, **__: Any) -> Tensor:
    """Raises NotImplementedError: nat_mm has no attention in three dimensions."""
    raise NotImplementedError(
        'nat_mm has no neighborhood attention in three dimensions; use NATTEN for it'
    )


na3d_qk = na3d_av = natten3dqkrpb = natten3dqk = natten3dav = na3d


class _NeighborhoodAttention(nn.Module):
    """Common base of the modules; parameters ``qkv``, ``rpb`` and ``proj`` as in NATTEN."""

    axes: int

    def __init__(
        self,
        dim: int,
        num_heads: int,
        kernel_size: Size,
        dilation: Size | None = 1,
        is_causal: Causal = False,
        rel_pos_bias: bool = False,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        use_experimental_ops: bool = False,
    ) -> None:
        super().__init__()
        _refuse(is_causal=is_causal)
        if dim % num_heads:
            raise ValueError(f'num_heads must divide dim, but {num_heads} does not divide {dim}')
        sizes = _of_map if self.axes == 2 else _of_sequence
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = qk_scale or self.head_dim**-0.5
        self.kernel_size, self.dilation = sizes(kernel_size), sizes(dilation)
        check_kernel_size(_pair(self.kernel_size))
        check_dilation(_pair(self.dilation))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        if rel_pos_bias:
            table = torch.empty(num_heads, *(2 * size - 1 for size in self.kernel_size))
            self.rpb = nn.Parameter(nn.init.trunc_normal_(table, std=0.02))
        else:
            self.register_parameter('rpb', None)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, L, C] or [B, H, W, C] to the same; as in 0.17, smaller inputs are not padded."""
        if x.ndim != self.axes + 2:
            raise ValueError(
                f'{type(self).__name__} needs {self.axes + 2} dimensions, {_INPUTS[self.axes]}, '
                f'got {tuple(x.shape)}'
            )
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        window = self.kernel_size, self.dilation
        if self.training and self.attn_drop.p > 0:
            qk, av = (na2d_qk, na2d_av) if self.axes == 2 else (na1d_qk, na1d_av)
            query, key, value = (tensor.movedim(-2, 1) for tensor in (query, key, value))
            scores = qk(self.scale * query, key, *window, rpb=self.rpb)
            attended = av(self.attn_drop(scores.softmax(-1)), value, *window).movedim(1, -2)
        else:
            fused = na2d if self.axes == 2 else na1d
            attended = fused(query, key, value, *window, rpb=self.rpb, scale=self.scale)
        return self.proj_drop(self.proj(attended.flatten(-2)))

    def extra_repr(self) -> str:
        """Returns the main options, for ``print(model)``."""
        return (
            f'head_dim={self.head_dim}, num_heads={self.num_heads}, '
            f'kernel_size={self.kernel_size}, dilation={self.dilation}, '
            f'has_bias={self.rpb is not None}'
        )


class NeighborhoodAttention1D(_NeighborhoodAttention):
    """Self-attention in a sequence [B, L, C], with the arguments of NATTEN 0.17's module."""

    axes = 1


class NeighborhoodAttention2D(_NeighborhoodAttention):
    """Self-attention on a map [B, H, W, C], with the arguments of NATTEN 0.17's module.

    ``nat_mm.layers.NeighborhoodAttention2D`` does the same for square windows, and pads small maps.
    """

    axes = 2


def provide_natten() -> None:
    """Makes this module available to other code as ``natten`` and ``natten.functional``.

    Raises:
        ImportError: If NATTEN is installed, since a process cannot use both.
    """
    if sys.modules.get('natten') is None:
        if importlib.util.find_spec('natten') is not None:
            raise ImportError(
                'NATTEN is installed, so `import natten` cannot give nat_mm.integrations.natten; '
                'uninstall it, or import the names from nat_mm.integrations.natten'
            )
    elif sys.modules['natten'].__doc__ != __doc__:
        raise ImportError(
            'NATTEN was imported already; import the names from nat_mm.integrations.natten'
        )
    names = {
        name: value
        for name, value in globals().items()
        if name.startswith(('na1d', 'na2d', 'na3d', 'natten', 'Neighborhood'))
    }
    for name in ('natten', 'natten.functional'):
        module = types.ModuleType(name, __doc__)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=name == 'natten')
        vars(module).update(names)
        sys.modules[name] = module
    sys.modules['natten'].functional = sys.modules['natten.functional']  # type: ignore[attr-defined]


_INPUTS = {1: '[B, L, C]', 2: '[B, H, W, C]'}
_LAYOUTS = {1: '[B, heads, L, D]', 2: '[B, heads, H, W, D]'}


def _scores(
    query: Tensor, key: Tensor, rpb: Tensor | None, kernel_size: Sizes, dilation: Sizes
) -> Tensor:
    _check_layout(('query', query), ('key', key), axes=len(kernel_size))
    pairs = check_kernel_size(_pair(kernel_size)), check_dilation(_pair(dilation))
    rpb = rpb if rpb is None else rpb.to(key.dtype)
    query_map, key_map = query.movedim(1, -2), key.movedim(1, -2)
    check_tensors(query_map, key_map, key_map, rpb, kernel_size, dilation)
    if len(kernel_size) == 2:
        return neighbor_scores(query, key, rpb, *pairs)
    rpb = rpb if rpb is None else rpb[:, None]
    return neighbor_scores(query[:, :, None], key[:, :, None], rpb, *pairs)[:, :, 0]


def _sums(attn: Tensor, value: Tensor, kernel_size: Sizes, dilation: Sizes) -> Tensor:
    _check_layout(('attn', attn), ('value', value), axes=len(kernel_size))
    pairs = check_kernel_size(_pair(kernel_size)), check_dilation(_pair(dilation))
    value_map = value.movedim(1, -2)
    check_tensors(value_map, value_map, value_map, None, kernel_size, dilation)
    if attn.shape[-1] != math.prod(kernel_size):
        raise ValueError(
            f'attn must have a weight for each of {math.prod(kernel_size)} neighbors, '
            f'got {attn.shape[-1]}'
        )
    if len(kernel_size) == 2:
        return neighbor_sums(attn, value, *pairs)
    return neighbor_sums(attn[:, :, None], value[:, :, None], *pairs)[:, :, 0]


def _refuse(*, is_causal: Causal, **additional: Tensor | None) -> None:
    if any(is_causal) if isinstance(is_causal, Sequence) else is_causal:
        raise NotImplementedError(
            f'nat_mm has no causal neighborhood attention, got is_causal={is_causal!r}'
        )
    for name, tensor in additional.items():
        if tensor is not None:
            raise NotImplementedError(f'nat_mm attends to neighbors alone; {name} must be None')


def _check_layout(*named: tuple[str, Tensor], axes: int) -> None:
    """Checks that tensors have heads before the map, and equal shapes except for the channels."""
    for name, tensor in named:
        if not isinstance(tensor, Tensor):
            raise TypeError(f'{name} must be a tensor, got {type(tensor).__name__}')
        if tensor.is_nested:
            raise NotImplementedError(f'nat_mm takes no nested tensors, but {name} is one')
        if tensor.ndim != axes + 3:
            raise ValueError(
                f'{name} must have {axes + 3} dimensions {_LAYOUTS[axes]}, '
                f'got {tuple(tensor.shape)}'
            )
    (first, one), (second, other) = named
    if one.shape[:-1] != other.shape[:-1]:
        raise ValueError(
            f'{first} and {second} must have the same batch, heads and map, '
            f'got {tuple(one.shape)} and {tuple(other.shape)}'
        )


def _of_map(size: Size | None) -> tuple[int, int]:
    """Returns a map's kernel size or dilation; None means 1."""
    return as_pair('kernel_size or dilation', 1 if size is None else size)


def _of_sequence(size: Size | None) -> tuple[int]:
    """Returns a sequence's kernel size or dilation; None means 1."""
    if isinstance(size, Sequence) and len(size) == 1:
        (size,) = size
    if not isinstance(size, int | None):
        raise TypeError(f'kernel_size or dilation of a sequence must be an int, got {size!r}')
    return (1 if size is None else size,)


def _pair(size: Sizes) -> tuple[int, int]:
    """Returns the kernel size or dilation on a map; a sequence is a map with one row."""
    return (1, size[0]) if len(size) == 1 else (size[0], size[1])
