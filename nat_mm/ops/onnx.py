"""Translates the operator to ONNX as dense attention on tiles, for maps of any size.

A tile is t consecutive tokens of a residue class along each axis. With ``t > k // 2``, the windows
of all its queries, including those shifted at a border, lie in its *halo*: the tile itself and the
k // 2 tokens before and after it. The distances between queries and keys are therefore the same in
all tiles, which share one table of biases; only the mask of the keys outside a query's window
depends on the tile's position. The last tile of a class is moved back so that it ends with the
class.

Since zero times NaN is NaN, a NaN or infinity in a key or value reaches all queries of its tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from onnxscript import ir, opset18

from nat_mm.ops.library import OPERATORS
from nat_mm.ops.tiling import tile_size
from nat_mm.ops.validation import as_pair

op: Any = opset18
"""Any, because its annotations reject the Python numbers that it accepts."""

Value = Any
"""A tensor of the ONNX graph. onnxscript's own types do not say what its operators return."""


def translations() -> dict[Callable, Callable]:
    """Returns the operator's entries for ``torch.onnx.export(..., custom_translation_table=...)``.

    Covers the operators of the backends 'cpu', 'portable' and 'triton', in float32, using opset 18.
    Attention modules on maps of the same size share their index tables, so each export needs its
    own translation table.
    """
    plans: dict[Any, _Plan] = {}

    def translate(
        query: Value,
        key: Value,
        value: Value,
        bias: Value | None,
        kernel_size: Sequence[int],
        dilation: Sequence[int],
        scale: float,
    ) -> tuple[Value, Value]:
        window_size = as_pair('kernel_size', kernel_size)
        window = _Window(window_size, as_pair('dilation', dilation), tile_size(window_size))
        sizes = tuple(getattr(size, 'value', size) for size in query.shape[1:3])
        plan = plans.get((window, sizes)) or _plan(op.Shape(query), window)
        if None not in sizes:  # None stands for any size
            plans[window, sizes] = plan
        output = _attend(query, key, value, bias, window, plan, scale)
        statistics = op.Constant(value_float=0.0)  # for the backward pass, which no graph has
        return output, statistics

    return {getattr(torch.ops.nat_mm, name).default: translate for name in OPERATORS}


class _Window(NamedTuple):
    """Constants of an attention module, as (rows, columns)."""

    kernel_size: tuple[int, int]
    dilation: tuple[int, int]
    tile: tuple[int, int]
    """Number of queries in a tile along each axis."""

    @property
    def queries(self) -> int:
        return math.prod(self.tile)

    @property
    def halo(self) -> tuple[int, int]:
        rows, columns = (t + k - 1 for t, k in zip(self.tile, self.kernel_size, strict=True))
        return rows, columns


class _Plan(NamedTuple):
    """Maps between the tokens of an H x W map and its tiles."""

    queries: Value
    """Indices of each tile's tokens, int64 [tiles, queries]."""
    keys: Value
    """Indices of each halo's tokens, int64 [tiles, keys]; arbitrary beyond a border."""
    mask: Value
    """0 for keys in a query's window, otherwise -infinity, float32 [tiles, queries, keys]."""
    results: Value
    """Index of each token among the queries of all tiles, int64 [H, W]."""


class _Axis(NamedTuple):
    """The tiles of an axis of length L, one residue class after another.

    All classes have as many tiles as the longest one; a shorter one may repeat its last tile.
    """

    queries: Value
    """Positions of the queries, [tiles, t]."""
    keys: Value
    """Positions of the halo, [tiles, t + k - 1]; beyond a border, that of the nearest token."""
    mask: Value
    """0 for keys in a query's window, otherwise -infinity, [tiles, t, t + k - 1]."""
    tile: Value
    """The tile of each token, [L]."""
    place: Value
    """Index of each token within its tile, [L]."""
    tiles: Value
    """Number of tiles, [1]."""


def _attend(
    query: Value,
    key: Value,
    value: Value,
    bias: Value | None,
    window: _Window,
    plan: _Plan,
    scale: float,
) -> Value:
    tokens = [0, 0, -1, int(query.shape[4])]

    def tiles(tensor: Value, numbers: Value) -> Value:
        """Gathers [B, heads, tiles, numbers, D] from [B, H, W, heads, D]."""
        by_head = op.Reshape(op.Transpose(tensor, perm=[0, 3, 1, 2, 4]), tokens)
        return op.Gather(by_head, numbers, axis=2)

    query = tiles(op.Mul(query, _constant(np.float32(scale))), plan.queries)
    key, value = (tiles(tensor, plan.keys) for tensor in (key, value))
    scores = op.MatMul(query, op.Transpose(key, perm=[0, 1, 2, 4, 3]))
    if bias is not None:
        scores = op.Add(scores, _bias_of_a_tile(bias, window))
    weights = op.Softmax(op.Add(scores, plan.mask), axis=-1)
    attended = op.Reshape(op.MatMul(weights, value), tokens)
    # [B, heads, H, W, D]
    output = op.Gather(attended, plan.results, axis=2)
    return op.Transpose(output, perm=[0, 2, 3, 1, 4])


def _plan(shape: Value, window: _Window) -> _Plan:
    height, width = (op.Slice(shape, [axis], [axis + 1]) for axis in (1, 2))
    rows, columns = (
        _axis(length, *constants)
        for length, *constants in zip((height, width), *window, strict=True)
    )
    halo_rows, halo_columns = window.halo
    mask = op.Add(op.Unsqueeze(rows.mask, [1, 3, 5]), op.Unsqueeze(columns.mask, [0, 2, 4]))
    before_row = op.Mul(
        op.Add(op.Mul(rows.tile, op.Mul(columns.tiles, [window.tile[0]])), rows.place),
        [window.tile[1]],
    )
    before_column = op.Add(op.Mul(columns.tile, [window.queries]), columns.place)
    return _Plan(
        queries=_pairs(op.Mul(rows.queries, width), columns.queries, window.queries),
        keys=_pairs(op.Mul(rows.keys, width), columns.keys, halo_rows * halo_columns),
        mask=op.Reshape(mask, [-1, window.queries, halo_rows * halo_columns]),
        results=op.Add(op.Unsqueeze(before_row, [1]), before_column),
    )


def _pairs(rows: Value, columns: Value, number: int) -> Value:
    """Sums all pairs of [row tiles, rows] and [column tiles, columns], giving [tiles, number]."""
    sums = op.Add(op.Unsqueeze(rows, [1, 3]), op.Unsqueeze(columns, [0, 2]))
    return op.Reshape(sums, [-1, number])


def _axis(length: Value, kernel_size: int, dilation: int, tile: int) -> _Axis:
    halo = tile + kernel_size - 1
    tiles_per_class = op.Div(op.Add(length, [dilation * tile - 1]), [dilation * tile])
    # [dilation, tiles per class or 1, queries, keys or 1]
    residue = _constant(np.arange(dilation)[:, None, None])
    size = _class_size(length, residue, dilation)
    start = op.Min(
        op.Unsqueeze(op.Mul(_range(tiles_per_class), [tile]), [1]), _last_start(size, tile)
    )
    queries = op.Add(start, _constant(np.arange(tile)))
    keys = op.Add(start, _constant(np.arange(halo) - kernel_size // 2))
    window_start = op.Min(
        _positive(op.Sub(queries, [kernel_size // 2])), op.Sub(size, [kernel_size])
    )
    distance = op.Sub(op.Unsqueeze(keys, [2]), op.Unsqueeze(window_start, [3]))
    inside = op.And(op.GreaterOrEqual(distance, [0]), op.Less(distance, [kernel_size]))
    mask = op.Where(inside, _constant(np.float32(0)), _constant(np.float32(-math.inf)))

    def on_axis(members: Value) -> Value:
        existing = _positive(op.Min(members, op.Sub(size, [1])))
        return op.Add(op.Mul(existing, [dilation]), residue)

    position = _range(length)
    member = op.Div(position, [dilation])
    own_residue = op.Sub(position, op.Mul(member, [dilation]))
    own_tile = op.Div(member, [tile])
    own_start = op.Min(
        op.Mul(own_tile, [tile]), _last_start(_class_size(length, own_residue, dilation), tile)
    )
    return _Axis(
        queries=op.Reshape(on_axis(queries), [-1, tile]),
        keys=op.Reshape(on_axis(keys), [-1, halo]),
        mask=op.Reshape(mask, [-1, tile, halo]),
        tile=op.Add(op.Mul(own_residue, tiles_per_class), own_tile),
        place=op.Sub(member, own_start),
        tiles=op.Mul(tiles_per_class, [dilation]),
    )


def _class_size(length: Value, residue: Value, dilation: int) -> Value:
    return op.Div(op.Sub(op.Add(length, [dilation - 1]), residue), [dilation])


def _last_start(size: Value, tile: int) -> Value:
    return _positive(op.Sub(size, [tile]))


def _bias_of_a_tile(bias: Value, window: _Window) -> Value:
    """Gathers [heads, 1, queries, keys] from the module's bias table."""
    row, column = (
        _constant(np.clip(np.arange(t + k - 1) - np.arange(t)[:, None] + k // 2, 0, 2 * k - 2))
        for t, k in zip(window.tile, window.kernel_size, strict=True)
    )
    # [heads, rows, halo rows, columns, halo columns]
    table = op.Gather(op.Gather(bias, row, axis=1), column, axis=3)
    table = op.Transpose(table, perm=[0, 1, 3, 2, 4])
    return op.Reshape(table, [0, 1, window.queries, math.prod(window.halo)])


def _positive(tensor: Value) -> Value:
    return op.Max(tensor, _constant(np.array([0])))


def _range(length: Value) -> Value:
    """Returns 0, 1, ..., length - 1 for a one-element tensor."""
    return op.Range(_constant(np.int64(0)), op.Squeeze(length), _constant(np.int64(1)))


def _constant(array: Any) -> Value:
    return op.Constant(value=ir.tensor(array))
