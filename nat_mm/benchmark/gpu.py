"""Times of neighborhood attention on a GPU, beside what else one could use there.

``make test-gpu`` writes them to a file in Markdown after the tests for GPUs;
:func:`nat_mm.benchmark.gpu.make_report` takes another device for trying it out.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import nat_mm
from nat_mm.benchmark.settings import KERNEL_SIZE, Settings, StageMap
from nat_mm.benchmark.timing import alternating_medians
from nat_mm.layers import NeighborhoodAttention2D
from nat_mm.ops import neighborhood_attention_2d
from nat_mm.ops.backends import BACKENDS

NAMES = ('triton', 'natten', 'portable')
MODES = ('forward', 'forward + backward')
SAMPLE_SECONDS = 0.02
_WINDOW = (KERNEL_SIZE, KERNEL_SIZE)

Functions = dict[str, Callable[[], object]]


class Row(NamedTuple):
    """Median milliseconds of each way on one map, or why it cannot be timed."""

    map: str
    mode: str
    milliseconds: Mapping[str, float | str]


class EventClock:
    """Seconds since its making on a GPU's own clock, after all work so far is done."""

    def __init__(self) -> None:
        self._start = torch.cuda.Event(enable_timing=True)
        self._start.record()

    def __call__(self) -> float:
        now = torch.cuda.Event(enable_timing=True)
        now.record()
        now.synchronize()
        return self._start.elapsed_time(now) / 1e3


def make_report(
    device: torch.device,
    settings: Settings,
    clock: Callable[[], float],
    *,
    notes: Sequence[str] = (),
) -> str:
    """Times everything in bfloat16 and float32, for about a minute on a GPU.

    Args:
        device: Where to run.
        settings: Maps and number of repeats; its threads do not matter.
        clock: Returns the time in seconds, when the device is done.
        notes: Lines to put on top of the environment's.

    Returns:
        Environment and tables in Markdown.
    """
    parts = ['# nat_mm on a GPU', '\n'.join(f'- {line}' for line in (*notes, *environment(device)))]
    problem = _swin_problem()
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix('torch.')
        parts.append(f'## Operator, kernel size 7, {name}: milliseconds, medians of turns')
        parts.append(_table(_measure(_operators, device, dtype, settings, clock)))
        parts.append(f"## Attention module and Swin's, {name}{_autocast_note(dtype)}: milliseconds")
        parts.append(problem or _table(_measure(_modules, device, dtype, settings, clock)))
    return '\n\n'.join(parts) + '\n'


def environment(device: torch.device) -> list[str]:
    """Lines that say what the figures were taken with."""
    lines = [f'device: {platform.processor() or platform.machine()}']
    if device.type == 'cuda':
        properties = torch.cuda.get_device_properties(device)
        memory = properties.total_memory / 2**30
        lines = [f'device: {properties.name}, {memory:.0f} GiB']
    versions = [f'nat_mm {nat_mm.__version__}', f'torch {torch.__version__}']
    for package in ('triton', 'natten', 'mmdet'):
        try:
            versions.append(f'{package} {importlib.metadata.version(package)}')
        except importlib.metadata.PackageNotFoundError:
            versions.append(f'no {package}')
    versions.append(f'python {platform.python_version()}')
    lines.append(', '.join(versions))
    lines.append(f'CUDA {torch.version.cuda}, HIP {torch.version.hip}')
    query = torch.empty(1, *_WINDOW, 1, 32, device=device)
    for name in NAMES:
        reasons = BACKENDS[name].unsupported_reasons(query, None, _WINDOW)
        lines.append(f'{name}: {"; ".join(reasons) or "available"}')
    return lines


def _measure(
    make: Callable[[StageMap, torch.device, torch.dtype, str], Functions],
    device: torch.device,
    dtype: torch.dtype,
    settings: Settings,
    clock: Callable[[], float],
) -> list[Row]:
    seconds = 0.0 if settings.quick else SAMPLE_SECONDS
    rows = []
    for stage, mode in itertools.product(settings.stage_maps, MODES):
        functions = make(stage, device, dtype, mode)
        failures = {name: _failure(each) for name, each in functions.items()}
        medians = alternating_medians(
            {name: each for name, each in functions.items() if failures[name] is None},
            repeats=settings.repeats,
            sample_seconds=seconds,
            clock=clock,
        )
        times = {name: failures[name] or medians[name] * 1e3 for name in functions}
        rows.append(Row(str(stage), mode, times))
    return rows


def _failure(function: Callable[[], object]) -> str | None:
    try:
        function()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return 'no memory'
    except Exception as error:  # one way's failure must not take the others' figures with it
        return f'{type(error).__name__}: {error}'.splitlines()[0].replace('|', '/')[:80]
    return None


def _operators(
    stage: StageMap, device: torch.device, dtype: torch.dtype, mode: str
) -> Functions:
    """Backends with a bias and without, and attention of PyTorch that knows no neighborhoods."""
    shape = (1, stage.height, stage.width, 3, stage.heads, stage.head_dim)
    projected = torch.randn(shape, device=device, dtype=dtype).unbind(3)
    bias = torch.randn(stage.heads, *(2 * size - 1 for size in _WINDOW), device=device)
    functions = {}
    for name in NAMES:
        for own_bias in (bias, None):
            if BACKENDS[name].unsupported_reasons(projected[0], own_bias, _WINDOW):
                continue
            if own_bias is None and name == 'portable':
                continue
            forward = partial(_attend, name)
            title = name if own_bias is not None else f'{name}, no bias'
            functions[title] = _function(forward, (*projected, own_bias), mode)
    everything = [t.flatten(1, 2).transpose(1, 2) for t in projected]
    attend = F.scaled_dot_product_attention
    functions['sdpa, all tokens'] = _function(attend, everything, mode)
    windows = -(-stage.height // KERNEL_SIZE) * -(-stage.width // KERNEL_SIZE)
    shape = (windows, stage.heads, KERNEL_SIZE**2, stage.head_dim)
    in_windows = [torch.randn(shape, device=device, dtype=dtype) for _ in 'qkv']
    functions['sdpa, 7x7 windows'] = _function(attend, in_windows, mode)
    return functions


def _attend(backend: str, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    return neighborhood_attention_2d(
        query, key, value, kernel_size=KERNEL_SIZE, bias=bias, backend=backend
    )


def _modules(stage: StageMap, device: torch.device, dtype: torch.dtype, mode: str) -> Functions:
    """Our attention module with each backend, and mmdet's for Swin, of equal channels and heads."""
    modules = {
        f'NA, {name}': NeighborhoodAttention2D(
            stage.channels, stage.heads, kernel_size=KERNEL_SIZE, backend=name
        )
        for name in NAMES
        if not BACKENDS[name].unsupported_reasons(
            torch.empty(1, *_WINDOW, 1, stage.head_dim, device=device, dtype=dtype), None, _WINDOW
        )
    }
    for title, shift in (('Swin', 0), ('Swin, shifted', KERNEL_SIZE // 2)):
        modules[title] = _SwinOnMap(stage, shift)
    x = torch.randn(1, stage.height, stage.width, stage.channels, device=device)
    functions = {}
    for title, module in modules.items():
        module.to(device).eval()
        forward = partial(_in_precision, module, dtype)
        functions[title] = _function(forward, (x, *module.parameters()), mode)
    return functions


class _SwinOnMap(nn.Module):
    """mmdet's module with the interface of ours: maps [B, H, W, C] instead of lists of tokens."""

    def __init__(self, stage: StageMap, shift_size: int) -> None:
        super().__init__()
        from mmdet.models.backbones.swin import ShiftWindowMSA

        self.attention = ShiftWindowMSA(
            stage.channels, stage.heads, window_size=KERNEL_SIZE, shift_size=shift_size
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x.flatten(1, 2), x.shape[1:3]).view(x.shape)


def _in_precision(module: nn.Module, dtype: torch.dtype, x: Tensor, *parameters: Tensor) -> Tensor:
    enabled = dtype != torch.float32
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=enabled):
        return module(x)


def _function(
    forward: Callable[..., Tensor], inputs: Sequence[Tensor | None], mode: str
) -> Callable[[], object]:
    if mode == 'forward':

        def infer() -> Tensor:
            with torch.no_grad():
                return forward(*inputs)

        return infer
    tensors = [
        t if t is None or isinstance(t, nn.Parameter) else t.detach().requires_grad_()
        for t in inputs
    ]
    leaves = [t for t in tensors if t is not None]

    def train() -> object:
        output = forward(*tensors)
        return torch.autograd.grad(output, leaves, torch.ones_like(output))

    return train


def _swin_problem() -> str | None:
    try:
        import mmdet.models.backbones.swin  # noqa: F401
    except ImportError as error:
        return f"Not measured: mmdet cannot be imported ({error}); pip install 'nat_mm[det,lite]'"
    return None


def _autocast_note(dtype: torch.dtype) -> str:
    return '' if dtype == torch.float32 else ' by autocast'


def _table(rows: Sequence[Row]) -> str:
    titles = ['map', 'pass', *rows[0].milliseconds]
    lines = [titles, ['---'] * len(titles)]
    for row in rows:
        times = row.milliseconds.values()
        cells = [time if isinstance(time, str) else f'{time:.3f}' for time in times]
        lines.append([row.map, row.mode, *cells])
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
