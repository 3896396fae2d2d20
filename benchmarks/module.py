"""Compares the attention module, projections included, with Swin's of equal channels and heads."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import geometric_mean, mean

import torch
from mmdet.models.backbones.swin import ShiftWindowMSA
from torch import Tensor, nn

from benchmarks.settings import KERNEL_SIZE, Settings, StageMap
from benchmarks.summary import SPEEDUP, Summary
from benchmarks.timing import alternating_medians
from nat_mm.layers import NeighborhoodAttention2D

TITLE = "Module in float32: neighborhood attention (NA) against mmdet's ShiftWindowMSA (Swin)"


@dataclass(frozen=True, kw_only=True)
class ModuleRow:
    """Results of both modules on one map; the ratio uses the mean of plain and shifted windows."""

    map: str
    mode: str
    na_milliseconds: float
    swin_milliseconds: float
    swin_shifted_milliseconds: float
    swin_to_na: float


def measure(settings: Settings) -> list[ModuleRow]:
    """Times both modules on the feature maps of the four stages."""
    rows = []
    for stage in settings.stage_maps:
        modules = _modules(stage)
        x = torch.randn(1, stage.height, stage.width, stage.channels)
        with torch.no_grad():
            rows.append(
                _row(
                    stage,
                    'forward',
                    {name: partial(module, x) for name, module in modules.items()},
                    settings,
                )
            )
        rows.append(
            _row(
                stage,
                'forward + backward',
                {name: _with_backward(module, x) for name, module in modules.items()},
                settings,
            )
        )
    return rows


def summarize(rows: Sequence[ModuleRow]) -> Summary:
    """Computes the speed of NA relative to Swin: geometric mean and minimum over the maps."""
    figures = {}
    for mode in dict.fromkeys(row.mode for row in rows):
        ratios = [row.swin_to_na for row in rows if row.mode == mode]
        figures[f'module {mode}: NA against Swin'] = geometric_mean(ratios)
        figures[f'module {mode}: NA against Swin, least of the maps'] = min(ratios)
    return {SPEEDUP: figures}


class _OnMap(nn.Module):
    """Swin's module with the interface of ours: maps [B, H, W, C] instead of token sequences."""

    def __init__(self, attention: ShiftWindowMSA) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x.flatten(1, 2), x.shape[1:3]).view(x.shape)


def _modules(stage: StageMap) -> dict[str, nn.Module]:
    modules = {'na': NeighborhoodAttention2D(stage.channels, stage.heads, kernel_size=KERNEL_SIZE)}
    for name, shift_size in (('swin', 0), ('swin_shifted', KERNEL_SIZE // 2)):
        modules[name] = _OnMap(
            ShiftWindowMSA(
                stage.channels, stage.heads, window_size=KERNEL_SIZE, shift_size=shift_size
            )
        )
    for module in modules.values():
        module.eval()
    return modules


def _with_backward(module: nn.Module, x: Tensor) -> Callable[[], object]:
    x = x.clone().requires_grad_()
    leaves = (x, *module.parameters())
    grad_output = torch.randn(x.shape)
    return lambda: torch.autograd.grad(module(x), leaves, grad_output)


def _row(
    stage: StageMap, mode: str, functions: dict[str, Callable[[], object]], settings: Settings
) -> ModuleRow:
    seconds = alternating_medians(
        functions, repeats=settings.repeats, sample_seconds=settings.sample_seconds
    )
    return ModuleRow(
        map=str(stage),
        mode=mode,
        **{f'{name}_milliseconds': each * 1e3 for name, each in seconds.items()},
        swin_to_na=mean((seconds['swin'], seconds['swin_shifted'])) / seconds['na'],
    )
