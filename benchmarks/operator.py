"""Compares the backend that 'auto' chooses on the CPU with others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import geometric_mean

import torch
from torch import Tensor

from benchmarks import natten_flex
from benchmarks.settings import KERNEL_SIZE, Settings, StageMap
from benchmarks.summary import MATMUL_FRACTION, SPEEDUP, Summary
from benchmarks.timing import alternating_medians
from nat_mm.ops import neighborhood_attention_2d
from nat_mm.ops.backends import choose_backend

TITLE = 'Operator, kernel size 7, with bias (map: height x width x channels / heads)'

Forward = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class OperatorRow:
    """Results of one backend on one map; rates are for the forward pass, without the softmax."""

    map: str
    dtype: str
    mode: str
    backend: str
    milliseconds: float
    gflops: float | None
    matmul_fraction: float | None


def measure(settings: Settings) -> list[OperatorRow]:
    """Times the backends on the feature maps of the four stages, in float32 and bfloat16."""
    dtypes = (torch.float32, torch.bfloat16)
    return [
        row
        for dtype in dtypes
        for stage in settings.stage_maps
        for row in _measure_map(stage, dtype, settings)
    ]


def summarize(rows: Sequence[OperatorRow]) -> Summary:
    """Computes rate and relative speed of 'auto' as geometric means over the maps."""
    summary = {MATMUL_FRACTION: {}, SPEEDUP: {}}
    for dtype, mode in dict.fromkeys((row.dtype, row.mode) for row in rows):
        by_backend = {}
        for row in rows:
            if (row.dtype, row.mode) == (dtype, mode):
                by_backend.setdefault(row.backend, {})[row.map] = row
        chosen, *others = by_backend
        name = f'operator {mode}, {dtype}: {chosen}'
        if mode == 'forward':
            fractions = [row.matmul_fraction for row in by_backend[chosen].values()]
            summary[MATMUL_FRACTION][name] = geometric_mean(fractions)
        for other in others:
            ratios = [
                row.milliseconds / by_backend[chosen][map].milliseconds
                for map, row in by_backend[other].items()
            ]
            figure = f'{name} against {other}'
            if len(ratios) < len(by_backend[chosen]):
                figure += f' ({len(ratios)} of {len(by_backend[chosen])} maps)'
            summary[SPEEDUP][figure] = geometric_mean(ratios)
    return summary


def auto_backend(dtype: torch.dtype) -> str:
    """Returns the backend that 'auto' chooses for CPU tensors."""
    query, _, _, bias = _inputs(StageMap(7, 7, 64, 2), dtype)
    return choose_backend('auto', query, bias, (KERNEL_SIZE, KERNEL_SIZE))


def random_projection(stage: StageMap, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Creates query, key and value as in the attention module: views of one projection."""
    shape = (1, stage.height, stage.width, 3, stage.heads, stage.head_dim)
    return torch.randn(shape, dtype=dtype).unbind(3)


def _inputs(stage: StageMap, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    table = 2 * KERNEL_SIZE - 1
    bias = torch.randn(stage.heads, table, table, dtype=dtype)
    return *random_projection(stage, dtype), bias


def _measure_map(stage: StageMap, dtype: torch.dtype, settings: Settings) -> list[OperatorRow]:
    inputs = _inputs(stage, dtype)
    names = dict.fromkeys((auto_backend(dtype), 'portable'))
    backends = {name: partial(_forward, name) for name in names}
    training = {name: _with_backward(forward, inputs) for name, forward in backends.items()}
    if natten_flex.fits(stage) and natten_flex.problem() is None:
        backends['natten'] = natten_flex.natten_forward
    inference = {name: partial(forward, *inputs) for name, forward in backends.items()}

    sampling = dict(repeats=settings.repeats, sample_seconds=settings.sample_seconds)
    size = settings.matmul_size
    left, right = torch.randn(2, size, size)
    with torch.no_grad():
        seconds = alternating_medians(
            {**inference, 'matmul': partial(torch.matmul, left, right)}, **sampling
        )
    matmul_rate = 2 * size**3 / seconds.pop('matmul')
    work = 4 * KERNEL_SIZE**2 * stage.channels * stage.height * stage.width
    common = dict(map=str(stage), dtype=str(dtype).removeprefix('torch.'))
    rows = [
        OperatorRow(
            **common,
            mode='forward',
            backend=name,
            milliseconds=each * 1e3,
            gflops=work / each / 1e9,
            matmul_fraction=work / each / matmul_rate,
        )
        for name, each in seconds.items()
    ]
    seconds = alternating_medians(training, **sampling)
    return rows + [
        OperatorRow(
            **common,
            mode='forward + backward',
            backend=name,
            milliseconds=each * 1e3,
            gflops=None,
            matmul_fraction=None,
        )
        for name, each in seconds.items()
    ]


def _forward(backend: str, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    return neighborhood_attention_2d(
        query, key, value, kernel_size=KERNEL_SIZE, bias=bias, backend=backend
    )


def _with_backward(forward: Forward, inputs: Sequence[Tensor]) -> Callable[[], object]:
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    grad_output = torch.randn(leaves[0].shape, dtype=leaves[0].dtype)
    return lambda: torch.autograd.grad(forward(*leaves), leaves, grad_output)
