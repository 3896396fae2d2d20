"""Neighborhood attention in two halves, with the scores in memory between them.

For code that changes or returns the scores or weights: dropout on them, ``output_attentions``, and
NATTEN's functions up to release 0.17. As in such code, the heads come before the map here, [B,
heads, H, W, D]; the attention weights are [B, heads, H, W, kh * kw], with the neighbors row by row.

Both halves and their derivatives are contractions over all pairs of a query and a neighbor. Each
computes one of weights, queries and neighbors from the other two, so the derivative of each
consists of the others, any number of times. They work on the tiles of the backend ``portable``,
whose matrix products are dense: a NaN in a value may reach queries that do not attend to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nat_mm.ops.backends.portable import (
    add_overlapping,
    batched,
    chunks,
    compute_dtype,
    table_index,
)
from nat_mm.ops.tiling import TileGroup, all_tiles
from nat_mm.ops.validation import without_autocast
from nat_mm.ops.window import axis_window

Pair = tuple[int, int]


def neighbor_scores(
    query: Tensor, key: Tensor, bias: Tensor | None, kernel_size: Pair, dilation: Pair
) -> Tensor:
    """First half: computes the products of each query and its neighbors' keys, plus the bias.

    Args:
        query: [B, heads, H, W, D], already scaled if so desired.
        key: [B, heads, H, W, D].
        bias: [heads, 2 * kh - 1, 2 * kw - 1] or None.
        kernel_size: (kh, kw), already checked.
        dilation: (rows, columns), already checked.

    Returns:
        [B, heads, H, W, kh * kw] in query's dtype, differentiable any number of times.
    """
    scores = _Contraction.apply('weights', kernel_size, dilation, query, key)
    if bias is None:
        return scores
    height, width = query.shape[2:4]
    (_, rows), (_, columns) = (
        axis_window(length, size, step, bias.device)
        for length, size, step in zip((height, width), kernel_size, dilation, strict=True)
    )
    # [heads, H * kh, W * kw]
    near = bias.to(scores.dtype).index_select(1, rows.flatten()).index_select(2, columns.flatten())
    near = near.unflatten(2, columns.shape).unflatten(1, rows.shape).transpose(2, 3)
    return scores + near.flatten(3)


def neighbor_sums(weights: Tensor, value: Tensor, kernel_size: Pair, dilation: Pair) -> Tensor:
    """Second half: computes the weighted sums of the neighbors' values.

    Args:
        weights: [B, heads, H, W, kh * kw].
        value: [B, heads, H, W, D].
        kernel_size: (kh, kw), already checked.
        dilation: (rows, columns), already checked.

    Returns:
        [B, heads, H, W, D] in value's dtype, differentiable any number of times.
    """
    return _Contraction.apply('query', kernel_size, dilation, weights.to(value.dtype), value)


class _Contraction(torch.autograd.Function):
    """Computes weights, queries or neighbors from the other two, which are passed in that order."""

    @staticmethod
    def forward(
        ctx: Any, wanted: str, kernel_size: Pair, dilation: Pair, first: Tensor, second: Tensor
    ) -> Tensor:
        ctx.wanted, ctx.kernel_size, ctx.dilation = wanted, kernel_size, dilation
        ctx.save_for_backward(first, second)
        with without_autocast(first.device.type):
            return _CONTRACTIONS[wanted](first, second, kernel_size, dilation)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        given = [name for name in _CONTRACTIONS if name != ctx.wanted]
        tensors = dict(zip(given, ctx.saved_tensors, strict=True)) | {ctx.wanted: grad}
        grads = [
            _Contraction.apply(
                name,
                ctx.kernel_size,
                ctx.dilation,
                *(tensors[other] for other in _CONTRACTIONS if other != name),
            )
            if needed
            else None
            for name, needed in zip(given, ctx.needs_input_grad[3:], strict=True)
        ]
        return None, None, None, *grads


def _weights(query: Tensor, near: Tensor, kernel_size: Pair, dilation: Pair) -> Tensor:
    weights = query.new_empty((*query.shape[:4], kernel_size[0] * kernel_size[1]))
    dtype = compute_dtype(query)
    for tiles, index, keys in _tiles(query, kernel_size, dilation):
        query_tiles, near_tiles = tiles.queries(_map_first(query)), tiles.keys(_map_first(near))
        weight_tiles = tiles.queries(_map_first(weights))
        for block in chunks(query_tiles, keys, dtype):
            own, around = batched(query_tiles[block], dtype), batched(near_tiles[block], dtype)
            found = torch.bmm(own, around.mT).gather(2, index.expand(len(own), -1, -1))
            weight_tiles[block].copy_(found.view(weight_tiles[block].shape))
    return weights


def _queries(weights: Tensor, near: Tensor, kernel_size: Pair, dilation: Pair) -> Tensor:
    queries = torch.empty_like(near, memory_format=torch.contiguous_format)
    dtype = compute_dtype(near)
    for tiles, index, keys in _tiles(near, kernel_size, dilation):
        weight_tiles, near_tiles = tiles.queries(_map_first(weights)), tiles.keys(_map_first(near))
        query_tiles = tiles.queries(_map_first(queries))
        for block in chunks(weight_tiles, keys, dtype):
            dense = _dense(batched(weight_tiles[block], dtype), index, keys)
            found = torch.bmm(dense, batched(near_tiles[block], dtype))
            query_tiles[block].copy_(found.view(query_tiles[block].shape))
    return queries


def _neighbors(weights: Tensor, query: Tensor, kernel_size: Pair, dilation: Pair) -> Tensor:
    dtype = compute_dtype(query)
    near = query.new_zeros(query.shape, dtype=dtype)
    for tiles, index, keys in _tiles(query, kernel_size, dilation):
        weight_tiles = tiles.queries(_map_first(weights))
        query_tiles, near_tiles = tiles.queries(_map_first(query)), tiles.keys(_map_first(near))
        for block in chunks(weight_tiles, keys, dtype):
            dense = _dense(batched(weight_tiles[block], dtype), index, keys)
            found = torch.bmm(dense.mT, batched(query_tiles[block], dtype))
            add_overlapping(near_tiles[block], found, tiles)
    return near.to(query.dtype)


_CONTRACTIONS = {'weights': _weights, 'query': _queries, 'near': _neighbors}


def _tiles(
    tensor: Tensor, kernel_size: Pair, dilation: Pair
) -> Iterator[tuple[TileGroup, Tensor, int]]:
    """Yields a map's tiles, each query's neighbors in the halo, and the number of keys in it.

    The neighbors are [queries, kh * kw].
    """
    for tiles in all_tiles((tensor.shape[2], tensor.shape[3]), kernel_size, dilation):
        _, inside = table_index(tiles, kernel_size, tensor.device)
        yield tiles, inside.nonzero()[:, 1].view(len(inside), -1), inside.shape[1]


def _map_first(tensor: Tensor) -> Tensor:
    """Views [B, heads, H, W, D] as [B, H, W, heads, D]."""
    return tensor.movedim(1, 3)


def _dense(weights: Tensor, index: Tensor, keys: int) -> Tensor:
    """Spreads weights [N, queries, kh * kw] over all keys of a halo, [N, queries, keys]."""
    dense = weights.new_zeros((*weights.shape[:2], keys))
    return dense.scatter_(2, index.expand(len(weights), -1, -1), weights)
