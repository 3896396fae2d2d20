"""Launches the kernels on tensors."""

from __future__ import annotations

import itertools
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
from nat_mm.ops.backends.triton.problem import LaunchProblem
from nat_mm.ops.backends.triton.query_gradient import na2d_bwd_q_kernel
from nat_mm.ops.backends.triton.tiles import Tiles
from nat_mm.ops.environment import read_flag
from nat_mm.ops.packing import empty_packed

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
        return _make_launch(kernel, problem, problem.default_tiles(kernel))
    if not read_flag('NAT_MM_TRITON_AUTOTUNE') or problem.query.numel() == 0:
        return _prepare(kernel, problem)

    def try_tiles(tiles: Tiles) -> Any:
        return run(_prepare(kernel, problem, tiles))

    query = problem.query
    options = (problem.has_bias, problem.kernel_size, problem.dilation, problem.precision)
    key = (kernel, query.device, query.dtype, tuple(query.shape), *options)
    candidates = tuning.candidate_tiles(kernel, problem.default_tiles(kernel))
    return _prepare(kernel, problem, tuning.choose(key, candidates, try_tiles, device=query.device))


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
        launch = _make_launch(kernel, problem, tiles or problem.default_tiles(kernel))
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
