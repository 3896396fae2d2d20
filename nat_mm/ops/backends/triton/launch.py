"""Runs the kernels on tensors."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nat_mm.ops.backends.triton import tuning
from nat_mm.ops.backends.triton.attend import na2d_fwd_kernel
from nat_mm.ops.backends.triton.key_gradient import na2d_bwd_kv_kernel
from nat_mm.ops.backends.triton.query_gradient import na2d_bwd_q_kernel
from nat_mm.ops.backends.triton.tiles import Tiles, choose_tiles, product_size
from nat_mm.ops.backends.triton.window import LOG2_E
from nat_mm.ops.packing import empty_packed


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
    query, key, value = map(_readable, (query, key, value))
    output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    statistics = torch.empty((2, *query.shape[:4]), dtype=torch.float32, device=query.device)
    tensors = (query, key, value, _table(bias), output, *statistics.unbind(0))
    problem = Problem(query, bias is not None, tuple(kernel_size), tuple(dilation), scale)

    def run(tiles: Tiles) -> None:
        strides = _strides(query, key, value)
        _launch(na2d_fwd_kernel, tensors, strides, problem, tiles, problem.constants(tiles))

    run(_choose('forward', problem, run))
    return output, statistics


def run_backward(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    output: Tensor,
    statistics: Tensor,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Backward kernel of :func:`nat_mm.ops.library.define_operator`.

    Besides the gradients it needs memory for float32 [B, H, W, heads], and with a bias for a
    float32 table, sides rounded up to powers of 2, of every program.
    """
    grad_output, query, key, value = map(_readable, (grad_output, query, key, value))
    output = output.contiguous()
    log_sum_exp, remainder = statistics.contiguous().unbind(0)
    grads = empty_packed(query)
    grad_query, grad_key, grad_value = grads.unbind(3)
    delta = torch.empty_like(log_sum_exp)
    table = _table(bias)
    strides = _strides(query, key, value, grad_output)
    problem = Problem(query, bias is not None, tuple(kernel_size), tuple(dilation), scale)
    # 16-bit gradients of scores need no more than TF32 when they are added up.
    exact = query.dtype == torch.float32
    precision = problem.precision if exact else _fast_precision()
    table_constants = make_table_constants(kernel_size, precision)
    table_size = table_constants['TABLE_ROWS'], table_constants['TABLE_COLUMNS']

    def run_queries(tiles: Tiles) -> Tensor | None:
        programs = problem.programs(tiles)
        partial_tables = None if bias is None else delta.new_zeros(programs, *table_size)
        inputs = (query, key, value, table, output, log_sum_exp, remainder, grad_output)
        tensors = (*inputs, delta, grad_query, partial_tables)
        constants = problem.constants(tiles) | table_constants
        _launch(na2d_bwd_q_kernel, tensors, strides, problem, tiles, constants)
        return partial_tables

    def run_keys(tiles: Tiles) -> None:
        inputs = (query, key, value, table, log_sum_exp, remainder, grad_output, delta)
        tensors = (*inputs, grad_key, grad_value)
        _launch(na2d_bwd_kv_kernel, tensors, strides, problem, tiles, problem.constants(tiles))

    partial_tables = run_queries(_choose('queries', problem, run_queries))
    run_keys(_choose('keys', problem, run_keys))
    if bias is None:
        return grads, query.new_empty(0)
    return grads, _reduce_tables(partial_tables, query, bias)


class Problem(NamedTuple):
    """What does not change with the tiles; ``query`` stands for all tensors of its shape."""

    query: Tensor
    has_bias: bool
    kernel_size: tuple[int, int]
    dilation: tuple[int, int]
    scale: float

    @property
    def precision(self) -> str:
        """How float32 is multiplied: with TF32 only where PyTorch allows it."""
        # allow_tf32 cannot be read once a program has used the newer fp32_precision.
        allowed = torch.backends.cuda.matmul.fp32_precision == 'tf32'
        return _fast_precision() if allowed else 'ieee'

    def constants(self, tiles: Tiles) -> dict[str, Any]:
        """Constants that all kernels are compiled for."""
        return make_constants(
            self.query.shape[4],
            self.has_bias,
            self.kernel_size,
            self.dilation,
            tiles,
            self.precision,
            direct=self.query.is_cuda and torch.version.hip is None,
        )

    def programs(self, tiles: Tiles) -> int:
        """Number of programs that a launch has."""
        return tiles.programs(*self.query.shape[:4], self.dilation)


def _choose(kernel: str, problem: Problem, run: Callable[[Tiles], Any]) -> Tiles:
    query = problem.query
    default = choose_tiles(
        kernel,
        kernel_size=problem.kernel_size,
        head_dim=query.shape[4],
        bytes_per_element=query.element_size(),
        is_amd=torch.version.hip is not None,
    )
    if query.numel() == 0 or not tuning.is_enabled():
        return default
    options = (problem.has_bias, problem.kernel_size, problem.dilation, problem.precision)
    key = (kernel, query.device, query.dtype, tuple(query.shape), *options)
    candidates = tuning.candidate_tiles(kernel, default)
    return tuning.choose(key, candidates, run, device=query.device)


def _launch(
    kernel: Any,
    tensors: Sequence[Tensor | None],
    strides: Sequence[tuple[int, ...]],
    problem: Problem,
    tiles: Tiles,
    constants: dict[str, Any],
) -> None:
    query = problem.query
    programs = problem.programs(tiles)
    if programs == 0:
        return
    # Triton launches on the current device, which need not be the tensors'.
    on_device = torch.cuda.device(query.device) if query.is_cuda else contextlib.nullcontext()
    with on_device:
        kernel[(programs,)](
            *tensors,
            *strides,
            *query.shape[1:4],
            problem.scale,
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
    *,
    direct: bool,
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
        'CHANNELS': product_size(head_dim),
        'PRECISION': precision,
        'DIRECT': direct,
    }


def make_table_constants(kernel_size: Sequence[int], precision: str) -> dict[str, Any]:
    """Constants of the sums for the bias table; ``precision`` is that of the sums over a tile."""
    rows, columns = (product_size(2 * size - 1) for size in kernel_size)
    return {'TABLE_ROWS': rows, 'TABLE_COLUMNS': columns, 'TABLE_PRECISION': precision}


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
    return total.to(bias.dtype).contiguous()  # for the same type, to() copies nothing


def _table(bias: Tensor | None) -> Tensor | None:
    """[heads, entries + 1], biases in powers of 2; the last is -inf, for pairs outside windows."""
    if bias is None:
        return None
    entries = bias.float().flatten(1)
    table = entries.new_full((len(bias), entries.shape[1] + 1), -math.inf)
    torch.mul(entries, LOG2_E.value, out=table[:, :-1])
    return table


def _strides(*tensors: Tensor) -> list[tuple[int, ...]]:
    return [tensor.stride()[:4] for tensor in tensors]


def _readable(tensor: Tensor) -> Tensor:
    """Copies what the kernels cannot read in place.

    They take channels for consecutive, and compute offsets in an image in 32 bits.
    """
    places = zip(tensor.shape[1:4], tensor.stride()[1:4], strict=True)
    is_far = sum(size * stride for size, stride in places) >= 2**31
    return tensor.contiguous() if is_far or tensor.stride(-1) != 1 else tensor
