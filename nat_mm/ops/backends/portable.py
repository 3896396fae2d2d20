"""Dense attention on small tiles of the map, in pure PyTorch, on any device.

Tiles are processed in chunks. Only the inputs are kept for the backward pass, which recomputes the
attention weights of each chunk. With its backward pass, batched matrix products of tiles are faster
than gathering every query's neighbors and than tiles through scaled_dot_product_attention.

Zero times NaN is NaN, so a NaN or infinity in a tile spreads beyond the windows that contain it. On
the CPU, a result that is not finite is therefore recomputed exactly. Other devices skip this, since
checking the result would make the host wait.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nat_mm.ops.library import define_operator
from nat_mm.ops.tiling import TileGroup, all_tiles, blocks, window_in_halo

CHUNK_BYTES = {'cpu': 2 << 20, 'default': 32 << 20}
"""Bytes of attention scores per chunk: fits in a CPU's cache, and keeps GPU launches few.

At most seven arrays of about this size exist at once (scores, weights, their gradients, and the
gathered queries, keys and values), so temporary memory stays below 256 MB at any resolution.
"""


def unsupported_reasons(
    query: Tensor, bias: Tensor | None, kernel_size: tuple[int, int]
) -> list[str]:
    """Supports everything."""
    return []


def _forward_kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
    exactly: bool = False,
) -> tuple[Tensor, Tensor]:
    output = torch.empty_like(query, memory_format=torch.contiguous_format)
    for tiles in all_tiles(tuple(query.shape[1:3]), tuple(kernel_size), tuple(dilation)):
        mask = _mask(tiles, bias, kernel_size, query)
        inside = _inside(tiles, kernel_size, query) if exactly else None
        query_tiles, output_tiles = tiles.queries(query), tiles.queries(output)
        key_tiles, value_tiles = tiles.keys(key), tiles.keys(value)
        for block in chunks(query_tiles, mask.shape[-1], mask.dtype):
            weights = _weights(query_tiles[block], key_tiles[block], mask, scale, inside)
            output_block = output_tiles[block]
            attended = _product(weights, batched(value_tiles[block], mask.dtype), inside)
            output_block.copy_(attended.view(output_block.shape))
    if not exactly and _spreads(output):
        return _forward_kernel(query, key, value, bias, kernel_size, dilation, scale, True)
    return output, query.new_empty((0, *query.shape[:4]), dtype=torch.float32)


def _backward_kernel(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    output: None,
    statistics: None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
    exactly: bool = False,
) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(query)
    grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    grad_key, grad_value = (torch.zeros(key.shape, dtype=dtype, device=key.device) for _ in 'kv')
    grad_bias = None if bias is None else bias.new_zeros(bias.shape, dtype=dtype)
    for tiles in all_tiles(tuple(query.shape[1:3]), tuple(kernel_size), tuple(dilation)):
        mask = _mask(tiles, bias, kernel_size, query)
        inside = _inside(tiles, kernel_size, query) if exactly else None
        turned = None if inside is None else inside.mT
        grad_mask = torch.zeros_like(mask)
        query_tiles, grad_query_tiles = tiles.queries(query), tiles.queries(grad_query)
        grad_output_tiles = tiles.queries(grad_output)
        key_tiles, grad_key_tiles = tiles.keys(key), tiles.keys(grad_key)
        value_tiles, grad_value_tiles = tiles.keys(value), tiles.keys(grad_value)
        for block in chunks(query_tiles, mask.shape[-1], mask.dtype):
            weights = _weights(query_tiles[block], key_tiles[block], mask, scale, inside)
            grad_out = batched(grad_output_tiles[block], dtype)
            grad_near = _product(weights.mT, grad_out, turned)
            add_overlapping(grad_value_tiles[block], grad_near, tiles)
            grad_weights = torch.bmm(grad_out, batched(value_tiles[block], dtype).mT)
            if inside is not None:
                grad_weights.masked_fill_(~inside, 0)
            grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, dtype)
            if inside is not None:
                grad_scores.masked_fill_(~inside, 0)
            if grad_bias is not None:
                grad_mask += grad_scores.view(-1, *mask.shape).sum(dim=0)
            grad_scores *= scale
            grad_query_block = grad_query_tiles[block]
            grad_query_block.copy_(
                _product(grad_scores, batched(key_tiles[block], dtype), inside).view(
                    grad_query_block.shape
                )
            )
            grad_near = _product(grad_scores.mT, batched(query_tiles[block], dtype), turned)
            add_overlapping(grad_key_tiles[block], grad_near, tiles)
        if grad_bias is not None:
            _add_mask_gradient(grad_bias, grad_mask, tiles, kernel_size)
    grads = torch.stack((grad_query, grad_key.to(key.dtype), grad_value.to(value.dtype)), 3)
    if not exactly and _spreads(grads):
        inputs = (query, key, value, bias, output, statistics)
        return _backward_kernel(grad_output, *inputs, kernel_size, dilation, scale, True)
    if bias is None or grad_bias is None:
        return grads, query.new_empty(0)
    return grads, grad_bias.to(bias.dtype)


forward = define_operator(
    'na2d_portable',
    _forward_kernel,
    _backward_kernel,
    devices=('CPU', 'CUDA', 'XPU', 'MPS'),
)


def compute_dtype(query: Tensor) -> torch.dtype:
    """Returns the dtype of sums: float32 or better."""
    return torch.promote_types(query.dtype, torch.float32)


def batched(tiles: Tensor, dtype: torch.dtype) -> Tensor:
    """Copies [..., heads, rows, columns, D] to [tiles * heads, rows * columns, D]."""
    rows, columns, head_dim = tiles.shape[-3:]
    return tiles.to(dtype).reshape(-1, rows * columns, head_dim)


def _spreads(result: Tensor) -> bool:
    """Returns whether a result contains a non-finite value, and must be computed exactly."""
    return result.device.type == 'cpu' and not math.isfinite(
        result.sum(dtype=compute_dtype(result)).item()
    )


def _product(weights: Tensor, near: Tensor, inside: Tensor | None) -> Tensor:
    """Sums ``near`` [N, keys, D] by ``weights`` [N, queries, keys], which are 0 outside windows.

    With ``inside`` [queries, keys], a NaN or infinity reaches only the sums of windows that contain
    it. Products of indicators then count the terms of each sum that are NaN or infinite.
    """
    if inside is None:
        return torch.bmm(weights, near)

    def count(*pairs: tuple[Tensor, Tensor]) -> Tensor:
        left, right = zip(*pairs, strict=True)
        return torch.bmm(torch.cat(left, -1).to(near.dtype), torch.cat(right, -2).to(near.dtype))

    weight_sign, near_sign = (factor.sign().nan_to_num() for factor in (weights, near))
    infinite = (weight_sign, near_sign * near.isinf()), (weight_sign * weights.isinf(), near_sign)
    plus_less_minus = count(*infinite)
    plus_and_minus = count(*((left.abs(), right.abs()) for left, right in infinite))
    nans = count(
        (weights.isnan(), torch.ones_like(near)),
        (inside.expand_as(weights), near.isnan()),
        (weights.isinf(), near == 0),
        ((weights == 0) & inside, near.isinf()),
    )
    finite = [torch.nan_to_num(factor, 0.0, 0.0, 0.0) for factor in (weights, near)]
    sums = torch.bmm(*finite)
    plus, minus = plus_and_minus > -plus_less_minus, plus_and_minus > plus_less_minus
    sums.masked_fill_(plus, math.inf).masked_fill_(minus, -math.inf)
    return sums.masked_fill_((nans > 0) | (plus & minus), math.nan)


def _weights(
    query_tiles: Tensor, key_tiles: Tensor, mask: Tensor, scale: float, inside: Tensor | None
) -> Tensor:
    """Returns the attention weights, [tiles * heads, queries, keys]."""
    query, key = batched(query_tiles, mask.dtype), batched(key_tiles, mask.dtype)
    scores = torch.bmm(query * scale, key.mT)
    scores.view(-1, *mask.shape).add_(mask)
    if inside is None:
        return torch.softmax(scores, dim=-1)
    return torch.softmax(scores.masked_fill_(~inside, -math.inf), dim=-1).masked_fill_(~inside, 0)


def chunks(query_tiles: Tensor, keys: int, dtype: torch.dtype) -> Iterator[tuple[slice, ...]]:
    """Slices the tiles' first five axes so that the scores with ``keys`` keys fit in a chunk.

    Without heads there are no chunks.
    """
    limit = CHUNK_BYTES.get(query_tiles.device.type, CHUNK_BYTES['default'])
    scores = math.prod(query_tiles.shape[5:8]) * keys
    if scores == 0:
        return iter(())
    return blocks(query_tiles.shape[:5], max(1, limit // (scores * dtype.itemsize)))


@functools.lru_cache(maxsize=256)
def table_index(
    tiles: TileGroup, kernel_size: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Returns entries of the flat bias table, and which are in the window, both [queries, keys]."""
    (relative_row, row_inside), (relative_column, column_inside) = (
        window_in_halo(segment, classes.length, size, device)
        for segment, classes, size in zip(tiles.segments, tiles.classes, kernel_size, strict=True)
    )
    shape = (row_inside.shape[0] * column_inside.shape[0], -1)
    # [rows, columns, halo rows, halo columns]
    entry = relative_row[:, None, :, None] * (2 * kernel_size[1] - 1)
    entry = entry + relative_column[None, :, None, :]
    inside = row_inside[:, None, :, None] & column_inside[None, :, None, :]
    return entry.reshape(shape), inside.reshape(shape)


def _inside(tiles: TileGroup, kernel_size: Sequence[int], query: Tensor) -> Tensor:
    """Returns whether each key is in each query's window, [queries, keys]."""
    return table_index(tiles, tuple(kernel_size), query.device)[1]


def _mask(
    tiles: TileGroup, bias: Tensor | None, kernel_size: Sequence[int], query: Tensor
) -> Tensor:
    """Returns what to add to scores [heads, queries, keys]: bias, or -inf outside the window."""
    entry, inside = table_index(tiles, tuple(kernel_size), query.device)
    dtype, heads = compute_dtype(query), query.shape[3]
    if bias is None:
        mask = torch.zeros((heads, *entry.shape), dtype=dtype, device=query.device)
    else:
        mask = bias.detach().flatten(1).to(dtype)[:, entry]
    return mask.masked_fill_(~inside, -math.inf)


def _add_mask_gradient(
    grad_bias: Tensor, grad_mask: Tensor, tiles: TileGroup, kernel_size: Sequence[int]
) -> None:
    entry, inside = table_index(tiles, tuple(kernel_size), grad_bias.device)
    grad_bias.flatten(1).index_add_(1, entry[inside], grad_mask[:, inside])


def add_overlapping(halos: Tensor, addend: Tensor, tiles: TileGroup) -> None:
    """Adds [tiles * heads, keys, D] to a block of halos that share memory where they overlap.

    Tiles far enough apart do not overlap, so each step adds every n-th tile.
    """
    addend = addend.view(halos.shape)
    row_step, column_step = (-(-part.halo // part.tile) for part in tiles.segments)
    for row in range(min(row_step, halos.shape[3])):
        for column in range(min(column_step, halos.shape[4])):
            every_nth = slice(row, None, row_step), slice(column, None, column_step)
            apart = (..., *every_nth, *(slice(None),) * 4)
            halos[apart].add_(addend[apart])
