"""Measures the peak resident memory of a backbone in a separate process."""

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
"""The optimizer's state exists from the start only from the second step on."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Resident memory in MiB.

    Attributes:
        increase: peak minus the memory after the imports, before the model was built.
        peak: peak of the whole process.
    """

    increase: float
    peak: float


def measure_memory(
    backbone: str, mode: str, dtype: str, shape: Sequence[int], settings: Settings
) -> Memory:
    """Runs a workload in a new process and reads its memory there.

    Args:
        backbone: See :func:`~benchmarks.workloads.make_workload`.
        mode: See there.
        dtype: See there.
        shape: See there.
        settings: Number of PyTorch's threads, and whether to use a small backbone.

    Raises:
        RuntimeError: If the work fails or its process ends, for instance for lack of memory.
    """
    sizes = 'x'.join(map(str, shape))
    work = f'measuring the memory of {backbone}, {mode}, {dtype}, {sizes}'
    return in_own_process(work, _measure_here, backbone, mode, dtype, shape, settings)


def in_own_process(work: str, function: Callable[..., Memory], *arguments: Any) -> Memory:
    """Calls a function in a new process.

    Raises:
        RuntimeError: If it fails or its process ends; the message describes it as ``work``.
    """
    # Fork from a process that has already imported what takes seconds, except nat_mm: in a process
    # forked after its import, the kernel would use a single thread.
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
    """Returns the memory of this process: 'VmRSS' for now, 'VmHWM' for the peak so far."""
    for line in Path('/proc/self/status').read_text().splitlines():
        name, _, value = line.partition(':')
        if name == field:
            return int(value.split()[0]) / 1024
    raise RuntimeError(f'/proc/self/status has no {field}')
