"""Measures how time grows with the area of the image."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.operator import random_projection
from benchmarks.settings import KERNEL_SIZE, Settings, StageMap
from benchmarks.summary import GROWTH, Summary
from benchmarks.timing import alternating_medians
from nat_mm.backbones import NAT
from nat_mm.ops import neighborhood_attention_2d

TITLE = "Growth: inference in float32 on square images (operator: on the first stage's map)"


@dataclass(frozen=True, kw_only=True)
class GrowthRow:
    """Results for one image size: time per pixel, also relative to the smallest image."""

    what: str
    side: int
    milliseconds: float
    nanoseconds_per_pixel: float
    relative: float


def measure(settings: Settings) -> list[GrowthRow]:
    """Times the operator and NAT-Tiny on images of growing area, taking the sizes in turns."""
    backbone = NAT(arch='tiny').eval()
    workloads = {
        'operator': {side: _operator(side) for side in settings.sides},
        'NAT-Tiny': {
            side: partial(backbone, torch.randn(1, 3, side, side)) for side in settings.sides
        },
    }
    rows = []
    for what, by_side in workloads.items():
        with torch.inference_mode():
            seconds = alternating_medians(
                by_side, repeats=settings.repeats, sample_seconds=settings.sample_seconds
            )
        smallest = min(settings.sides)
        rows += [
            GrowthRow(
                what=what,
                side=side,
                milliseconds=each * 1e3,
                nanoseconds_per_pixel=each / side**2 * 1e9,
                relative=(each / side**2) / (seconds[smallest] / smallest**2),
            )
            for side, each in seconds.items()
        ]
    return rows


def summarize(rows: Sequence[GrowthRow]) -> Summary:
    """Returns the time per pixel of the largest image relative to the smallest."""
    largest = max(row.side for row in rows)
    smallest = min(row.side for row in rows)
    return {
        GROWTH: {
            f'{row.what}, {largest}x{largest} against {smallest}x{smallest}': row.relative
            for row in rows
            if row.side == largest
        }
    }


def _operator(side: int) -> partial:
    stage = StageMap(side // 4, side // 4, channels=64, heads=2)
    query, key, value = random_projection(stage, torch.float32)
    table = 2 * KERNEL_SIZE - 1
    bias = torch.randn(stage.heads, table, table)
    return partial(neighborhood_attention_2d, query, key, value, kernel_size=KERNEL_SIZE, bias=bias)
