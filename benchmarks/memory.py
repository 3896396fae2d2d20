"""Peak resident memory of a backbone, in a process of its own."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.settings import Settings
from benchmarks.workloads import make_workload
from nat_mm.training.bf16_instructions import avoid_unusable_amx

STEPS = 2
"""From the second step on, the optimizer's state exists from the start."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Resident memory in MiB.

    Attributes:
        increase: peak minus what the process had after its imports, before the model was built.
        peak: highest of the whole process.
    """

    increase: float
    peak: float


def measure_memory(
    backbone: str, mode: str, dtype: str, shape: Sequence[int], settings: Settings
) -> Memory:
    """Runs a workload in a new process and reads its memory there.

    Args:
        backbone: See :func:`~benchmarks.workloads.make_workload`, also for the next three.
        mode: See there.
        dtype: See there.
        shape: See there.
        settings: Number of PyTorch's threads, and whether to take a small backbone.

    Raises:
        RuntimeError: If the work fails, or its process ends, for instance for want of memory.
    """
    sizes = 'x'.join(map(str, shape))
    work = f'measuring the memory of {backbone}, {mode}, {dtype}, {sizes}'
    return in_own_process(work, _measure_here, backbone, mode, dtype, shape, settings)


def in_own_process(work: str, function: Callable[..., Memory], *arguments: Any) -> Memory:
    """Calls a function in a new process.

    Raises:
        RuntimeError: If it fails, or its process ends; ``work`` says in the message what it did.
    """
    # Forked from a process that has imported what takes seconds. Not nat_mm, though: in a process
    # forked after its import the kernel uses a single thread.
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['mmcv.cnn', 'mmengine.runner', 'torchvision', 'triton'])
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as executor:
        measurement = executor.submit(function, *arguments)
        try:
            return measurement.result()
        except Exception as error:
            raise RuntimeError(f'{work} failed: {error}') from error


def _measure_here(
    backbone: str, mode: str, dtype: str, shape: Sequence[int], settings: Settings
) -> Memory:
    torch.set_num_threads(settings.threads)
    avoid_unusable_amx()
    before = resident_mebibytes('VmRSS')
    work = make_workload(backbone, mode, dtype, shape, quick=settings.quick)
    for _ in range(STEPS):
        work()
    peak = resident_mebibytes('VmHWM')
    return Memory(increase=peak - before, peak=peak)


def resident_mebibytes(field: str) -> float:
    """Memory of this process: 'VmRSS' now, 'VmHWM' at most so far."""
    for line in Path('/proc/self/status').read_text().splitlines():
        name, _, value = line.partition(':')
        if name == field:
            return int(value.split()[0]) / 1024
    raise RuntimeError(f'/proc/self/status has no {field}')
