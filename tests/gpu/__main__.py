"""``make test-gpu``: the tests that need a GPU, then times for a report."""

import os
import sys
from pathlib import Path

import pytest
import torch

from nat_mm.benchmark import gpu
from nat_mm.benchmark.settings import Settings

FOLDER = Path(__file__).parent
REPORT = Path('gpu_report.md')


def main() -> int:
    """Runs all, writes the report and returns the tests' exit code."""
    if not torch.cuda.is_available():
        print('no GPU was found (torch.cuda.is_available() is False), so nothing was tested')
        return 0
    os.environ.pop('TRITON_INTERPRET', None)
    # Without tests/conftest.py, in which Triton is told to interpret. Workers compile side by side.
    options = ['--confcutdir', str(FOLDER), '--numprocesses', '4', '--durations', '0', '-q']
    code = pytest.main([str(FOLDER), *options])
    print(f'timing, for {REPORT} ...', flush=True)
    outcome = 'passed' if code == 0 else 'FAILED, see the output of make test-gpu'
    settings = Settings(threads=torch.get_num_threads())
    notes = [f'tests for GPUs: {outcome}']
    report = gpu.make_report(torch.device('cuda'), settings, gpu.EventClock(), notes=notes)
    REPORT.write_text(report, encoding='utf-8')
    print(report)
    print(f'{REPORT} can be pasted into an issue')
    return int(code)


if __name__ == '__main__':
    sys.exit(main())
