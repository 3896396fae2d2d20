"""Compares an exported backbone in onnxruntime with PyTorch: time, and memory of the process."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch

from benchmarks.memory import Memory, in_own_process, resident_mebibytes
from benchmarks.settings import Settings
from benchmarks.summary import MEMORY, SPEEDUP, Summary
from benchmarks.timing import alternating_medians
from nat_mm.backbones import NAT, DiNAT
from nat_mm.export.backbone import write_backbone

TITLE = (
    'Exported backbone: onnxruntime against PyTorch in float32 (increase: peak memory minus what '
    'the process had before the model was built)'
)

RUNS = 2
"""Number of runs before memory is read; onnxruntime plans its memory in the first run."""


@dataclass(frozen=True, kw_only=True)
class OnnxRow:
    """Results of one backbone on one image."""

    backbone: str
    input: str
    pytorch_milliseconds: float
    onnxruntime_milliseconds: float
    pytorch_mib_increase: float
    pytorch_mib_peak: float
    onnxruntime_mib_increase: float
    onnxruntime_mib_peak: float


def measure(settings: Settings) -> list[OnnxRow]:
    """Exports each backbone once, and runs it on images of several sizes."""
    rows = []
    # Each export takes seconds.
    for name in ('DiNAT-Tiny',) if settings.quick else ('NAT-Tiny', 'DiNAT-Tiny'):
        with TemporaryDirectory() as folder:
            path = Path(folder) / 'backbone.onnx'
            write_backbone(_backbone(name, settings.quick), path)
            rows += [_row(name, path, sides, settings) for sides in settings.exported_sizes]
    return rows


def summarize(rows: Sequence[OnnxRow]) -> Summary:
    """Computes speed and memory of onnxruntime relative to PyTorch."""
    summary: Summary = {SPEEDUP: {}, MEMORY: {}}
    for row in rows:
        name = f'exported {row.backbone}, {row.input}: onnxruntime against PyTorch'
        summary[SPEEDUP][name] = row.pytorch_milliseconds / row.onnxruntime_milliseconds
        summary[MEMORY][f'{name}, whole process'] = row.onnxruntime_mib_peak / row.pytorch_mib_peak
    return summary


def _row(name: str, path: Path, sides: tuple[int, int], settings: Settings) -> OnnxRow:
    image = np.random.default_rng(0).standard_normal((1, 3, *sides), dtype=np.float32)
    backbone, session = _backbone(name, settings.quick), _session(path, settings.threads)
    tensor = torch.from_numpy(image)
    with torch.inference_mode():
        seconds = alternating_medians(
            {
                'pytorch': lambda: backbone(tensor),
                'onnxruntime': lambda: session.run(None, {'image': image}),
            },
            repeats=settings.repeats,
            sample_seconds=settings.sample_seconds,
        )
    work = f'measuring the memory of {name}, {sides[0]}x{sides[1]}'
    pytorch = in_own_process(work, _pytorch_memory, name, image, settings)
    exported = in_own_process(work, _onnxruntime_memory, path, image, settings)
    return OnnxRow(
        backbone=name,
        input='x'.join(map(str, sides)),
        pytorch_milliseconds=seconds['pytorch'] * 1e3,
        onnxruntime_milliseconds=seconds['onnxruntime'] * 1e3,
        pytorch_mib_increase=pytorch.increase,
        pytorch_mib_peak=pytorch.peak,
        onnxruntime_mib_increase=exported.increase,
        onnxruntime_mib_peak=exported.peak,
    )


def _backbone(name: str, quick: bool) -> torch.nn.Module:
    options = {'depths': (1,), 'num_heads': (1,), 'out_indices': (0,)} if quick else {}
    if name == 'NAT-Tiny':
        backbone = NAT(arch='tiny', **options)
    else:
        backbone = DiNAT(arch='tiny', **({'dilations': ((2,),)} | options if quick else {}))
    return backbone.eval().requires_grad_(False)


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])


def _pytorch_memory(name: str, image: np.ndarray, settings: Settings) -> Memory:
    torch.set_num_threads(settings.threads)
    before = resident_mebibytes('VmRSS')
    backbone = _backbone(name, settings.quick)
    with torch.inference_mode():
        for _ in range(RUNS):
            backbone(torch.from_numpy(image))
    return _since(before)


def _onnxruntime_memory(path: Path, image: np.ndarray, settings: Settings) -> Memory:
    before = resident_mebibytes('VmRSS')
    session = _session(path, settings.threads)
    for _ in range(RUNS):
        session.run(None, {'image': image})
    return _since(before)


def _since(before: float) -> Memory:
    peak = resident_mebibytes('VmHWM')
    return Memory(increase=peak - before, peak=peak)
