"""Runs the kernels on tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from nat_mm.ops.backends.triton.attend import attend
from nat_mm.ops.backends.triton.key_gradient import differentiate_keys
from nat_mm.ops.backends.triton.query_gradient import differentiate_queries
from nat_mm.ops.backends.triton.tiles import Tiles, choose_tiles

SMALLEST_PRODUCT = 16
"""Least size of a matrix that Triton multiplies."""


def run_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Forward kernel of :func:`nat_mm.ops.library.define_operator`."""
    query, key, value = map(_with_contiguous_channels, (query, key, value))
    output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    log_sum_exp = torch.empty(query.shape[:4], dtype=torch.float32, device=query.device)
    tiles = _tiles('forward', query, kernel_size)
    tensors = (query, key, value, _table(bias), output, log_sum_exp)
    strides = _strides(query, key, value)
    constants = _constants(query, bias, kernel_size, dilation, tiles)
    _launch(attend, tensors, strides, query, dilation, scale, tiles, constants)
    return output, log_sum_exp


def run_backward(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    output: Tensor,
    log_sum_exp: Tensor,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Backward kernel of :func:`nat_mm.ops.library.define_operator`.

    Besides the gradients it needs memory for float32 [B, H, W, heads], and with a bias for a
    float32 table, sides rounded up to powers of 2, of every program.
    """
    grad_output, query, key, value = map(
        _with_contiguous_channels, (grad_output, query, key, value)
    )
    output, log_sum_exp = output.contiguous(), log_sum_exp.contiguous()
    grads = [torch.empty(query.shape, dtype=query.dtype, device=query.device) for _ in 'qkv']
    delta = torch.empty_like(log_sum_exp)
    tiles = _tiles('queries', query, kernel_size)
    table = _table(bias)
    programs = tiles.programs(*query.shape[:4], tuple(dilation))
    strides = _strides(query, key, value, grad_output)
    constants = _constants(query, bias, kernel_size, dilation, tiles)
    # 16-bit gradients of scores need no more than TF32 when they are added up.
    exact = query.dtype == torch.float32
    precision = constants['PRECISION'] if exact else _fast_precision()
    table_constants = make_table_constants(kernel_size, precision)
    sizes = (table_constants['TABLE_ROWS'], table_constants['TABLE_COLUMNS'])
    partial_tables = None if bias is None else delta.new_zeros(programs, *sizes)

    tensors = (query, key, value, table, output, log_sum_exp, grad_output, delta, grads[0])
    _launch(
        differentiate_queries,
        (*tensors, partial_tables),
        strides,
        query,
        dilation,
        scale,
        tiles,
        constants | table_constants,
    )
    tiles = _tiles('keys', query, kernel_size)
    tensors = (query, key, value, table, log_sum_exp, grad_output, delta, *grads[1:])
    constants = _constants(query, bias, kernel_size, dilation, tiles)
    _launch(differentiate_keys, tensors, strides, query, dilation, scale, tiles, constants)
    if bias is None:
        return *grads, query.new_empty(0)
    return *grads, _reduce_tables(partial_tables, query, bias)


def _launch(
    kernel: Any,
    tensors: Sequence[Tensor | None],
    strides: Sequence[tuple[int, ...]],
    query: Tensor,
    dilation: Sequence[int],
    scale: float,
    tiles: Tiles,
    constants: dict[str, Any],
) -> None:
    batch, height, width, heads, _ = query.shape
    programs = tiles.programs(batch, height, width, heads, tuple(dilation))
    if programs == 0:
        return
    # Triton launches on the current device, which need not be the tensors'.
    on_device = torch.cuda.device(query.device) if query.is_cuda else contextlib.nullcontext()
    with on_device:
        kernel[(programs,)](
            *tensors,
            *strides,
            height,
            width,
            heads,
            scale,
            **constants,
            num_warps=tiles.warps,
            num_stages=tiles.stages,
        )


def make_constants(
    head_dim: int,
    has_bias: bool,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    tiles: Tiles,
    precision: str,
) -> dict[str, Any]:
    """Constants that all kernels are compiled for; ``precision`` is that of float32 products."""
    return {
        'HEAD_DIM': head_dim,
        'HAS_BIAS': has_bias,
        'KERNEL_ROWS': kernel_size[0],
        'KERNEL_COLUMNS': kernel_size[1],
        'DILATION_ROWS': dilation[0],
        'DILATION_COLUMNS': dilation[1],
        'TILE_ROWS': tiles.rows,
        'TILE_COLUMNS': tiles.columns,
        'BLOCK_ROWS': tiles.block_rows,
        'BLOCK_COLUMNS': tiles.block_columns,
        'CHANNELS': max(SMALLEST_PRODUCT, triton.next_power_of_2(head_dim)),
        'PRECISION': precision,
    }


def make_table_constants(kernel_size: Sequence[int], precision: str) -> dict[str, Any]:
    """Constants of the sums for the bias table; ``precision`` is that of the sums over a tile."""
    rows, columns = (
        max(SMALLEST_PRODUCT, triton.next_power_of_2(2 * size - 1)) for size in kernel_size
    )
    return {'TABLE_ROWS': rows, 'TABLE_COLUMNS': columns, 'TABLE_PRECISION': precision}


def _tiles(kernel: str, query: Tensor, kernel_size: Sequence[int]) -> Tiles:
    return choose_tiles(
        kernel,
        kernel_size=tuple(kernel_size),
        head_dim=query.shape[4],
        bytes_per_element=query.element_size(),
        is_amd=torch.version.hip is not None,
    )


def _constants(
    query: Tensor,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    tiles: Tiles,
) -> dict[str, Any]:
    precision = _fast_precision() if torch.backends.cuda.matmul.allow_tf32 else 'ieee'
    has_bias = bias is not None
    return make_constants(query.shape[4], has_bias, kernel_size, dilation, tiles, precision)


def _fast_precision() -> str:
    """How float32 is multiplied where TF32 is good enough; few of AMD's GPUs have that."""
    return 'ieee' if torch.version.hip else 'tf32'


def _reduce_tables(partial_tables: Tensor, query: Tensor, bias: Tensor) -> Tensor:
    """Adds up the tables of all programs of each head, in an order that is always the same."""
    batch, heads = query.shape[0], query.shape[3]
    programs, table_rows, table_columns = partial_tables.shape
    programs_each = programs // max(1, batch * heads)
    by_head = partial_tables.view(batch, heads, programs_each, table_rows, table_columns)
    total = by_head.sum((0, 2))[:, : bias.shape[1], : bias.shape[2]]
    return total.to(bias.dtype, memory_format=torch.contiguous_format)


def _table(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.float().contiguous()


def _strides(*tensors: Tensor) -> list[tuple[int, ...]]:
    return [tensor.stride()[:4] for tensor in tensors]


def _with_contiguous_channels(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
