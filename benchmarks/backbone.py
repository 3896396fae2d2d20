"""Compares NAT-Tiny with mmdet's Swin-Tiny: time and peak memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from benchmarks.memory import measure_memory
from benchmarks.settings import Settings
from benchmarks.summary import MEMORY, SPEEDUP, Summary
from benchmarks.timing import alternating_medians
from benchmarks.workloads import BACKBONES, make_workload

TITLE = (
    'Backbone: time, and resident memory in a process of its own (bfloat16: autocast; increase: '
    'peak minus what the process had before the model was built)'
)


@dataclass(frozen=True, kw_only=True)
class BackboneRow:
    """Results of one backbone on one input."""

    input: str
    mode: str
    dtype: str
    backbone: str
    milliseconds: float
    mib_increase: float
    mib_peak: float


def measure(settings: Settings) -> list[BackboneRow]:
    """Times both backbones in turns, and measures the memory of each in a separate process."""
    rows = []
    for shape, (mode, dtype) in product(settings.inputs, settings.modes_and_dtypes):
        seconds = alternating_medians(
            {
                name: make_workload(name, mode, dtype, shape, quick=settings.quick)
                for name in BACKBONES
            },
            repeats=settings.repeats,
            sample_seconds=settings.sample_seconds,
        )
        for name in BACKBONES:
            memory = measure_memory(name, mode, dtype, shape, settings)
            rows.append(
                BackboneRow(
                    input='x'.join(map(str, shape)),
                    mode=mode,
                    dtype=dtype,
                    backbone=name,
                    milliseconds=seconds[name] * 1e3,
                    mib_increase=memory.increase,
                    mib_peak=memory.peak,
                )
            )
    return rows


def summarize(rows: Sequence[BackboneRow]) -> Summary:
    """Computes speed and memory of NAT-Tiny relative to Swin-Tiny."""
    summary = {SPEEDUP: {}, MEMORY: {}}
    pairs = {}
    for row in rows:
        name = f'backbone {row.mode}, {row.dtype}, {row.input}: NAT-Tiny against Swin-Tiny'
        pairs.setdefault(name, {})[row.backbone] = row
    for name, pair in pairs.items():
        nat, swin = pair['NAT-Tiny'], pair['Swin-Tiny']
        summary[SPEEDUP][name] = swin.milliseconds / nat.milliseconds
        summary[MEMORY][name] = nat.mib_increase / swin.mib_increase
    return summary
