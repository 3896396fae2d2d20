"""Launches the kernels on tensors."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.compiler import CompiledKernel
from triton.runtime.jit import JITFunction

from nat_mm.ops.backends.triton import statistics_per_query, tuning
from nat_mm.ops.backends.triton.attend import na2d_fwd_kernel
from nat_mm.ops.backends.triton.bias_gradient import na2d_bwd_bias_kernel
from nat_mm.ops.backends.triton.key_gradient import na2d_bwd_kv_kernel
from nat_mm.ops.backends.triton.query_gradient import na2d_bwd_q_kernel
from nat_mm.ops.backends.triton.tiles import (
    Tiles,
    choose_tiles,
    fast_precision,
    float32_precision,
    product_size,
)
from nat_mm.ops.memory import empty_packed

KERNELS = {
    'forward': na2d_fwd_kernel,
    'queries': na2d_bwd_q_kernel,
    'keys': na2d_bwd_kv_kernel,
    'bias': na2d_bwd_bias_kernel,
}
TABLE_STRIP = 8
"""Neighboring entries of the bias table that one program sums: one sector of memory."""
TABLES_AT_ONCE = 512
MOST_PREPARED = 4096
"""Most launches to keep prepared, about 2 kB each."""
MOST_COMPILED = 64
"""Most strides and alignments to remember for one of them."""

_PREPARED: dict[Hashable, Launch] = {}


def run_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    scale: float,
    *,
    traced: bool = False,
) -> tuple[Tensor, Tensor]:
    """Forward kernel of :func:`nat_mm.ops.library.define_operator`.

    Args:
        query, key, value, bias, kernel_size, dilation, scale: Those of the operator.
        traced: Whether to record launches in a graph for torch.compile.
    """
    query, query_strides = _readable(query)
    key, key_strides = _readable(key)
    value, value_strides = _readable(value)
    output = torch.empty_like(query, memory_format=torch.contiguous_format)
    shape = (statistics_per_query(query.dtype), *query.shape[:4])
    statistics = query.new_empty(shape, dtype=torch.float32)
    tensors = (query, key, value, _contiguous(bias), output, statistics)
    strides = (query_strides, key_strides, value_strides)
    options = (_pair(kernel_size), _pair(dilation), scale)
    problem = LaunchProblem(query, bias is not None, *options, traced=traced)

    def run(launch: Launch) -> None:
        _launch(launch, tensors, strides, problem)

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
    *,
    traced: bool = False,
) -> tuple[Tensor, Tensor]:
    """Backward kernel of :func:`nat_mm.ops.library.define_operator`.

    Besides the gradients, it allocates a float32 [B, H, W, heads] and, with a bias, a float32 table
    per program, with sides rounded up to powers of 2.

    Args:
        grad_output, query, key, value, bias, output, statistics, kernel_size, dilation, scale:
            Those of the operator.
        traced: Whether to record launches in a graph for torch.compile.
    """
    query, query_strides = _readable(query)
    key, key_strides = _readable(key)
    value, value_strides = _readable(value)
    grad_output, grad_output_strides = _readable(grad_output)
    output = output.contiguous()
    statistics = statistics.contiguous()
    table = _contiguous(bias)
    grads = empty_packed(query)
    delta = query.new_empty(query.shape[:4], dtype=torch.float32)
    strides = (query_strides, key_strides, value_strides, grad_output_strides)
    options = (_pair(kernel_size), _pair(dilation), scale)
    problem = LaunchProblem(query, bias is not None, *options, traced=traced)

    def run_queries(launch: Launch) -> Tensor | None:
        partial_tables = None if bias is None else launch.make_tables(problem)
        inputs = (query, key, value, table, output, statistics, grad_output)
        tensors = (*inputs, delta, grads, partial_tables)
        _launch(launch, tensors, strides, problem)
        return partial_tables

    def run_keys(launch: Launch) -> None:
        tensors = (query, key, value, table, statistics, grad_output, delta, grads)
        _launch(launch, tensors, strides, problem)

    partial_tables = run_queries(_choose('queries', problem, run_queries))
    run_keys(_choose('keys', problem, run_keys))
    if bias is None or partial_tables is None:
        return grads, query.new_empty(0)
    return grads, _reduce_tables(partial_tables, bias, problem)


def is_traceable() -> bool:
    """Returns whether torch.compile can see the kernels, which Triton's interpreter hides."""
    return isinstance(na2d_fwd_kernel, JITFunction)


def _pair(values: Sequence[int]) -> tuple[int, int]:
    rows, columns = values  # PyTorch's dispatcher passes lists
    return rows, columns


class LaunchProblem:
    """Everything about a launch that does not depend on the tiles.

    Attributes:
        query: Represents all tensors of its shape.
        head_dim: Number of channels, a constant even while other sizes are variables.
        traced: Whether launches are recorded in a graph. Sizes may then be variables, so nothing
            about the problem may be kept.
        kind: Everything that a launch depends on besides its arguments.
    """

    __slots__ = (
        'query',
        'has_bias',
        'kernel_size',
        'dilation',
        'scale',
        'traced',
        'head_dim',
        'precision',
        'kind',
    )

    def __init__(
        self,
        query: Tensor,
        has_bias: bool,
        kernel_size: tuple[int, int],
        dilation: tuple[int, int],
        scale: float,
        *,
        traced: bool = False,
    ) -> None:
        self.query = query
        self.has_bias = has_bias
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.scale = scale
        self.traced = traced
        self.head_dim = int(query.shape[4])
        is_float32 = query.dtype == torch.float32
        self.precision = _float32_precision(query) if is_float32 else 'ieee'
        window = (has_bias, kernel_size, dilation)
        self.kind = (query.shape, query.dtype, query.device, window, self.precision)

    def constants(self, kernel: str, tiles: Tiles) -> dict[str, Any]:
        """Returns the constants that a kernel is compiled for."""
        constants = make_constants(
            self.head_dim,
            self.has_bias,
            self.kernel_size,
            self.dilation,
            tiles,
            self.precision,
        )
        if kernel == 'queries':
            # TF32 is precise enough to sum 16-bit gradients of scores.
            exact = self.query.dtype == torch.float32
            precision = self.precision if exact else fast_precision(_kind_of_gpu(self.query.device))
            constants |= make_table_constants(self.kernel_size, precision)
        return constants

    def programs(self, tiles: Tiles) -> int:
        """Returns the number of programs in a launch."""
        batch, height, width, heads = self.query.shape[:4]
        return tiles.programs(batch, height, width, heads, self.dilation)

    def has_idle_programs(self, tiles: Tiles) -> bool:
        """Returns whether smaller residue classes may leave some programs without tokens.

        A length that is a variable stays one: it is not compared.
        """
        axes = zip(self.query.shape[1:3], self.dilation, (tiles.rows, tiles.columns), strict=True)
        return any(
            isinstance(length, torch.SymInt)
            or -(-(length // step) // size) < -(-length // (step * size))
            for length, step, size in axes
            if step > 1
        )


class Launch(NamedTuple):
    """What all launches of a kernel on problems of one kind share.

    Attributes:
        kernel: The kernel, bound to its grid.
        programs: Number of programs in the grid.
        options: Constants, warps and stages.
        constants: The constants alone, in the order of the kernel's arguments.
        has_idle_programs: Whether there are programs without tokens, which write nothing.
        compiled: What Triton compiled for tensors of some dtypes, strides and alignments.
    """

    kernel: Callable[..., Any]
    programs: int
    options: dict[str, Any]
    constants: tuple[Any, ...]
    has_idle_programs: bool
    compiled: dict[Hashable, Callable[..., Any]]

    def make_tables(self, problem: LaunchProblem) -> Tensor:
        """Allocates every program's table, zeroed if some programs write none.

        Returns:
            float32 [B * heads * programs, TABLE_ROWS, TABLE_COLUMNS].
        """
        shape = (self.programs, self.options['TABLE_ROWS'], self.options['TABLE_COLUMNS'])
        make = problem.query.new_zeros if self.has_idle_programs else problem.query.new_empty
        return make(shape, dtype=torch.float32)


def _choose(kernel: str, problem: LaunchProblem, run: Callable[[Launch], Any]) -> Launch:
    """Returns the launch with the default tiles or, if the environment asks for it, the fastest."""
    if problem.traced:
        return _make_launch(kernel, problem, _default_tiles(kernel, problem))
    if not tuning.is_enabled() or problem.query.numel() == 0:
        return _prepare(kernel, problem)

    def try_tiles(tiles: Tiles) -> Any:
        return run(_prepare(kernel, problem, tiles))

    query = problem.query
    options = (problem.has_bias, problem.kernel_size, problem.dilation, problem.precision)
    key = (kernel, query.device, query.dtype, tuple(query.shape), *options)
    candidates = tuning.candidate_tiles(kernel, _default_tiles(kernel, problem))
    return _prepare(kernel, problem, tuning.choose(key, candidates, try_tiles, device=query.device))


def _default_tiles(kernel: str, problem: LaunchProblem) -> Tiles:
    return choose_tiles(
        kernel,
        kernel_size=problem.kernel_size,
        head_dim=problem.head_dim,
        bytes_per_element=problem.query.element_size(),
        gpu=_kind_of_gpu(problem.query.device),
    )


@functools.cache
def _kind_of_gpu(device: torch.device) -> str:
    """Returns one of :data:`nat_mm.ops.backends.triton.tiles.GPUS`; 'nvidia' if interpreted."""
    if torch.version.hip is not None:
        return 'amd'
    is_hopper = device.type == 'cuda' and torch.cuda.get_device_capability(device)[0] == 9
    return 'hopper' if is_hopper else 'nvidia'


def _prepare(kernel: str, problem: LaunchProblem, tiles: Tiles | None = None) -> Launch:
    """Looks up how to launch a kernel, or determines it for the first problem of a kind.

    Args:
        kernel: 'forward', or in the backward pass 'queries' or 'keys'.
        problem: Any problem of the kind.
        tiles: Tiles; by default those of :func:`nat_mm.ops.backends.triton.tiles.choose_tiles`.
    """
    key = (kernel, tiles, problem.kind)
    launch = _PREPARED.get(key)
    if launch is None:
        launch = _make_launch(kernel, problem, tiles or _default_tiles(kernel, problem))
        if len(_PREPARED) >= MOST_PREPARED:  # map sizes keep changing
            _PREPARED.clear()
        _PREPARED[key] = launch
    return launch


def _make_launch(kernel: str, problem: LaunchProblem, tiles: Tiles) -> Launch:
    programs = problem.programs(tiles)
    options = problem.constants(kernel, tiles) | tiles.options()
    constants = tuple(options[name] for name in KERNELS[kernel].arg_names if name in options)
    function = _find_kernel(kernel, problem)[(programs,)]
    return Launch(function, programs, options, constants, problem.has_idle_programs(tiles), {})


def _find_kernel(kernel: str, problem: LaunchProblem) -> Any:
    """Returns a kernel to be called like ``kernel[grid](...)``."""
    return torch.library.wrap_triton(KERNELS[kernel]) if problem.traced else KERNELS[kernel]


def _launch(
    launch: Launch,
    tensors: Sequence[Tensor | None],
    strides: Sequence[tuple[int, ...]],
    problem: LaunchProblem,
) -> None:
    if launch.programs == 0:
        return
    numbers = (*itertools.chain.from_iterable(strides), *problem.query.shape[:4], problem.scale)
    arguments = (*tensors, *numbers)
    if problem.traced:
        launch.kernel(*arguments, **launch.options)
        return
    # Triton looks up what it compiled, too, but that takes three times as long as a launch.
    kind = (*strides, *(t is not None and (t.dtype, t.data_ptr() % 16) for t in tensors))
    compiled = launch.compiled.get(kind)
    with _current(problem.query.device):
        if compiled is not None:
            compiled(*arguments, *launch.constants)
            return
        compiled = launch.kernel(*arguments, **launch.options)
    # Not if interpreted; and AMD's also depends on the sizes of the tensors' storages.
    if isinstance(compiled, CompiledKernel) and torch.version.hip is None:
        if len(launch.compiled) >= MOST_COMPILED:  # strides keep changing
            launch.compiled.clear()
        launch.compiled[kind] = compiled[(launch.programs, 1, 1)]


def _current(device: torch.device) -> AbstractContextManager[Any]:
    """Makes a GPU the current one, on which Triton launches."""
    if device.type == 'cuda' and device.index != torch.cuda.current_device():
        return torch.cuda.device(device)
    return nullcontext()


def make_constants(
    head_dim: int,
    has_bias: bool,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    tiles: Tiles,
    precision: str,
) -> dict[str, Any]:
    """Returns constants common to all kernels; ``precision`` is that of float32 products."""
    met = -(-(tiles.rows + kernel_size[0] - 1) // tiles.block_rows) * tiles.block_rows
    distances = tiles.block_columns + tiles.columns - 1
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
        'INTERIOR_ENTRIES': _power_of_2((met + tiles.rows - 1) * distances),
        'BORDER_ENTRIES': _power_of_2(math.prod(2 * size - 1 for size in kernel_size) + 1),
        'PRECISION': precision,
    }


def _power_of_2(number: int) -> int:
    """Rounds up to a power of 2."""
    return 1 << (number - 1).bit_length()


def make_table_constants(kernel_size: Sequence[int], precision: str) -> dict[str, Any]:
    """Returns constants for the bias table's sums; ``precision`` is that of sums over a tile."""
    rows, columns = (product_size(2 * size - 1) for size in kernel_size)
    return {'TABLE_ROWS': rows, 'TABLE_COLUMNS': columns, 'TABLE_PRECISION': precision}


def _float32_precision(query: Tensor) -> str:
    """Returns the precision of float32 products: TF32 only where PyTorch allows it.

    Otherwise, Hopper uses three TF32 products for each, which together are as exact as one in
    float32 and run on tensor cores.
    """
    gpu = _kind_of_gpu(query.device)
    # allow_tf32 cannot be read once a program has used the newer fp32_precision.
    if torch.backends.cuda.matmul.fp32_precision == 'tf32':
        return fast_precision(gpu)
    return float32_precision(gpu, query.shape[4])


def _reduce_tables(partial_tables: Tensor, bias: Tensor, problem: LaunchProblem) -> Tensor:
    """Sums the tables of all programs of each head, always in the same order."""
    images, _, _, heads, _ = problem.query.shape
    total, table_rows, table_columns = partial_tables.shape
    programs = total // max(1, images * heads)
    rows, columns = (2 * size - 1 for size in problem.kernel_size)
    grad_bias = torch.empty_like(bias, memory_format=torch.contiguous_format)
    kernel = _find_kernel('bias', problem)[(table_columns // TABLE_STRIP, rows, heads)]
    sizes = (rows, columns, table_rows, table_columns, TABLE_STRIP, TABLES_AT_ONCE)
    arguments = (partial_tables, grad_bias, images, heads, programs, *sizes)
    with _current(bias.device):
        kernel(*arguments, num_warps=8)
    return grad_bias


def _contiguous(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.contiguous()


def _readable(tensor: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Copies a tensor that the kernels cannot read in place.

    They require consecutive channels, and compute offsets within an image in 32 bits.

    Returns:
        The tensor or its copy, and the strides of image, row, column and head.
    """
    _, height, width, heads, _ = tensor.shape
    image, row, column, head, channel = tensor.stride()
    if channel == 1 and height * row + width * column + heads * head < 2**31:
        return tensor, (image, row, column, head)
    copy = tensor.contiguous()
    return copy, copy.stride()[:4]
