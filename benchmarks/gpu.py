"""Times neighborhood attention and its alternatives on a GPU.

``python -m tests.gpu`` writes the report to a Markdown file after the GPU tests;
:func:`benchmarks.gpu.make_report` also accepts another device, for trying it out. OpenMMLab is only
needed for the comparison with Swin.
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
from benchmarks import gpu_timing
from benchmarks.gpu_timing import Call, Times
from benchmarks.settings import KERNEL_SIZE, Settings, StageMap
from nat_mm.layers import NeighborhoodAttention2D
from nat_mm.ops import neighborhood_attention_2d
from nat_mm.ops.backends import BACKENDS

NAMES = ('triton', 'natten', 'portable')
BATCH = 2
MODES = ('forward', 'forward + backward')
_WINDOW = (KERNEL_SIZE, KERNEL_SIZE)

Functions = dict[str, Sequence[Call]]
"""Each way to compute something, by name: one function for each of several sets of inputs."""


class Row(NamedTuple):
    """Times of each way on one feature map, or why it cannot be timed."""

    map: str
    mode: str
    times: Mapping[str, Times | str]


def make_report(device: torch.device, settings: Settings, *, notes: Sequence[str] = ()) -> str:
    """Times everything in bfloat16 and float32.

    Args:
        device: Where to run.
        settings: Feature maps and number of repeats; the number of threads does not matter.
        notes: Lines to put before those on the environment.

    Returns:
        Environment and tables in Markdown.
    """
    lines = (*notes, *environment(device), f'batches of {BATCH}', gpu_timing.METHOD)
    parts = ['# nat_mm on a GPU', '\n'.join(f'- {line}' for line in lines)]
    problem = _swin_problem()
    for dtype in (torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix('torch.')
        parts.append(f'## Operator, kernel size 7, {name}')
        parts.append(_table(_measure(_operators, device, dtype, settings)))
        parts.append(f"## Attention module and Swin's, {_precision(dtype)}")
        if problem:
            parts.append(problem)
        parts.append(_table(_measure(_modules, device, dtype, settings)))
    return '\n\n'.join(parts) + '\n'


def environment(device: torch.device) -> list[str]:
    """Describes the environment of the measurement, line by line."""
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
) -> list[Row]:
    rows = []
    for stage, mode in itertools.product(settings.stage_maps, MODES):
        functions = make(stage, device, dtype, mode)
        rows.append(Row(str(stage), mode, gpu_timing.time_all(functions, device, settings)))
    return rows


def _operators(stage: StageMap, device: torch.device, dtype: torch.dtype, mode: str) -> Functions:
    """Returns the backends with and without bias, and PyTorch's attention without neighborhoods."""
    shape = (BATCH, stage.height, stage.width, 3, stage.heads, stage.head_dim)
    bytes_of_a_map = BATCH * stage.height * stage.width * stage.channels * dtype.itemsize
    sets = gpu_timing.number_of_sets(4 * bytes_of_a_map, device)  # query, key, value and output
    projected = [torch.randn(shape, device=device, dtype=dtype).unbind(3) for _ in range(sets)]
    bias = torch.randn(stage.heads, *(2 * size - 1 for size in _WINDOW), device=device)
    functions = {}
    for name in NAMES:
        for own_bias in (bias, None):
            if BACKENDS[name].unsupported_reasons(projected[0][0], own_bias, _WINDOW):
                continue
            if own_bias is None and name == 'portable':
                continue
            title = name if own_bias is not None else f'{name}, no bias'
            inputs = [(*tensors, own_bias) for tensors in projected]
            functions[title] = _functions(partial(_attend, name), inputs, mode)
    attend = F.scaled_dot_product_attention
    everything = [[t.flatten(1, 2).transpose(1, 2) for t in tensors] for tensors in projected]
    functions['sdpa, all tokens'] = _functions(attend, everything, mode)
    windows = BATCH * -(-stage.height // KERNEL_SIZE) * -(-stage.width // KERNEL_SIZE)
    shape = (windows, stage.heads, KERNEL_SIZE**2, stage.head_dim)
    in_windows = [
        [torch.randn(shape, device=device, dtype=dtype) for _ in 'qkv'] for _ in range(sets)
    ]
    functions['sdpa, 7x7 windows'] = _functions(attend, in_windows, mode)
    return functions


def _attend(backend: str, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    return neighborhood_attention_2d(
        query, key, value, kernel_size=KERNEL_SIZE, bias=bias, backend=backend
    )


def _modules(stage: StageMap, device: torch.device, dtype: torch.dtype, mode: str) -> Functions:
    """Returns our attention module with each backend, and mmdet's Swin module of the same size."""
    modules = {
        f'NA, {name}': NeighborhoodAttention2D(
            stage.channels, stage.heads, kernel_size=KERNEL_SIZE, backend=name
        )
        for name in NAMES
        if not BACKENDS[name].unsupported_reasons(
            torch.empty(1, *_WINDOW, 1, stage.head_dim, device=device, dtype=dtype), None, _WINDOW
        )
    }
    shifts = {} if _swin_problem() else {'Swin': 0, 'Swin, shifted': KERNEL_SIZE // 2}
    for title, shift in shifts.items():
        modules[title] = _SwinOnMap(stage, shift)
    shape = (BATCH, stage.height, stage.width, stage.channels)
    bytes_of_a_map = BATCH * stage.height * stage.width * stage.channels * torch.float32.itemsize
    sets = gpu_timing.number_of_sets(2 * bytes_of_a_map, device)  # in and out
    maps = [torch.randn(shape, device=device) for _ in range(sets)]
    functions = {}
    for title, module in modules.items():
        module.to(device).eval()
        inputs = [(x, *module.parameters()) for x in maps]
        functions[title] = _functions(partial(_in_precision, module, dtype), inputs, mode)
    return functions


class _SwinOnMap(nn.Module):
    """mmdet's module with the interface of ours: maps [B, H, W, C] instead of token sequences."""

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


def _functions(
    forward: Callable[..., Tensor], inputs: Sequence[Sequence[Tensor | None]], mode: str
) -> list[Call]:
    """Returns the functions to time: one pass over each set of inputs."""
    return [_function(forward, tensors, mode) for tensors in inputs]


def _function(forward: Callable[..., Tensor], inputs: Sequence[Tensor | None], mode: str) -> Call:
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
    grad_output = None

    def train() -> object:
        nonlocal grad_output
        output = forward(*tensors)
        if grad_output is None:
            grad_output = torch.ones_like(output)
        return torch.autograd.grad(output, leaves, grad_output)

    return train


def _swin_problem() -> str | None:
    try:
        import mmdet.models.backbones.swin  # noqa: F401
    except ImportError as error:
        return f"Without Swin: mmdet cannot be imported ({error}); pip install 'nat_mm[det,lite]'"
    return None


def _precision(dtype: torch.dtype) -> str:
    return 'float32' if dtype == torch.float32 else 'bfloat16 by autocast'


def _table(rows: Sequence[Row]) -> str:
    lines = [('map', 'pass', 'way', 'ms', 'us of the host'), ['---'] * 5]
    for row in rows:
        for way, times in row.times.items():
            cells = (times, '') if isinstance(times, str) else times.cells()
            lines.append((row.map, row.mode, way, *cells))
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
