"""Peak resident memory of a backbone, in a process of its own.

Run as a command, it does the work in this process and prints the figures.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from nat_mm.benchmark.settings import DTYPES, MODES
from nat_mm.benchmark.workloads import BACKBONES, make_workload
from nat_mm.compat.bf16_instructions import avoid_unusable_amx

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
    backbone: str, mode: str, dtype: str, shape: Sequence[int], *, threads: int
) -> Memory:
    """Runs a workload in a new process and reads its memory there.

    Args:
        backbone: See :func:`~nat_mm.benchmark.workloads.make_workload`, also for the next three.
        mode: See there.
        dtype: See there.
        shape: See there.
        threads: Number of PyTorch's threads.

    Raises:
        RuntimeError: If the process fails, for instance because memory runs out.
    """
    sizes = [str(size) for size in shape]
    command = [sys.executable, '-m', __name__, backbone, mode, dtype, *sizes]
    result = subprocess.run(
        [*command, '--threads', str(threads)], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise RuntimeError(
            f'measuring the memory of {backbone}, {mode}, {dtype}, {"x".join(sizes)} failed with '
            f'exit code {result.returncode}: {result.stderr.strip()[-2000:]}'
        )
    return Memory(**json.loads(result.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('backbone', choices=BACKBONES)
    parser.add_argument('mode', choices=MODES)
    parser.add_argument('dtype', choices=DTYPES)
    parser.add_argument('shape', type=int, nargs=4)
    parser.add_argument('--threads', type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    avoid_unusable_amx()
    before = _resident_mebibytes('VmRSS')
    work = make_workload(arguments.backbone, arguments.mode, arguments.dtype, arguments.shape)
    for _ in range(STEPS):
        work()
    peak = _resident_mebibytes('VmHWM')
    print(json.dumps(asdict(Memory(increase=peak - before, peak=peak))))


def _resident_mebibytes(field: str) -> float:
    # getrusage's peak would begin with the parent's memory, which the process has until exec.
    for line in Path('/proc/self/status').read_text().splitlines():
        name, _, value = line.partition(':')
        if name == field:
            return int(value.split()[0]) / 1024
    raise RuntimeError(f'/proc/self/status has no {field}')


if __name__ == '__main__':
    main()
