"""Runs commands side by side and shows their progress."""

import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from nat_mm.checkpoints.published import FOLDER
from nat_mm.errors import UserError

CONFIGS = {
    'detector': FOLDER / 'configs' / 'demo' / 'mask_rcnn_nat_demo.py',
    'segmentor': FOLDER / 'configs' / 'demo' / 'upernet_nat_demo.py',
}
"""Config of each of the demo's models, by its name, which is that of its folder."""

_PROGRESS = re.compile(r'(?:Iter|Epoch)\((train|val|test)\)\s+(?:\[\d+\])?\[\s*(\d+)/(\d+)\]')
_DETAILS = {
    'loss': re.compile(r'\bloss: (\S+)'),
    'left': re.compile(r'\beta: (\S+)'),
    'box AP50': re.compile(r'\bcoco/bbox_mAP_50: (\S+)'),
    'mask AP50': re.compile(r'\bcoco/segm_mAP_50: (\S+)'),
    'mIoU': re.compile(r'\bmIoU: (\S+)'),
}


@dataclass(frozen=True)
class Run:
    """One command: its name for the user, its arguments, and the file for its full output."""

    name: str
    arguments: tuple[str, ...]
    output: Path


def run_side_by_side(runs: list[Run]) -> None:
    """Runs commands at the same time, with the CPU cores shared evenly, until all have ended.

    Prints one short line whenever mmengine logs progress. When a command fails, the others are
    stopped.

    Args:
        runs: The commands to run.

    Raises:
        UserError: If a command fails; the message contains its last line and its output file.
    """
    environment = {**os.environ, 'PYTHONUNBUFFERED': '1'}
    # On small feature maps, two processes use the cores better than several threads of one.
    threads = max(1, len(os.sched_getaffinity(0)) // len(runs))
    environment.setdefault('OMP_NUM_THREADS', str(threads))
    processes = []
    try:
        for run in runs:
            processes.append(
                subprocess.Popen(
                    run.arguments,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors='replace',
                    env=environment,
                )
            )
        last_lines = [deque(maxlen=1) for _ in runs]
        readers = [
            threading.Thread(target=_show_progress, args=arguments, daemon=True)
            for arguments in zip(runs, processes, last_lines, strict=True)
        ]
        for reader in readers:
            reader.start()
        while any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes):
                break
            time.sleep(0.1)
        for run, process, reader, last in zip(runs, processes, readers, last_lines, strict=True):
            if process.poll():
                reader.join()
                raise UserError(
                    f'{run.name} failed with exit code {process.returncode}: '
                    f'{last[0] if last else "no output"} (all output: {run.output})'
                )
        for reader in readers:
            reader.join()
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
                process.wait()


def _show_progress(run: Run, process: subprocess.Popen, last_line: deque) -> None:
    """Copies the output to its file, and prints a summary of the progress lines."""
    started = time.monotonic()
    with open(run.output, 'w', buffering=1) as file:
        for line in process.stdout:
            file.write(line)
            if line.strip():
                last_line.append(line.strip())
            match = _PROGRESS.search(line)
            if match:
                what, number, total = match.groups()
                details = [
                    f'{name} {found.group(1)}'
                    for name, pattern in _DETAILS.items()
                    if (found := pattern.search(line))
                ]
                minutes, seconds = divmod(int(time.monotonic() - started), 60)
                print(
                    f'{minutes:3d}:{seconds:02d}  {run.name:<10} {what:<5} '
                    f'{number:>4}/{total:<4} {"  ".join(details)}',
                    file=sys.stdout,
                    flush=True,
                )
