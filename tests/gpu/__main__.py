"""``python -m tests.gpu``, or ``make test-gpu``: runs the tests that need a GPU and reports times.

Requires PyTorch with Triton, numpy and pytest. With pytest-xdist, the tests run in parallel; with
mmdet, Swin's attention is timed, too.
"""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.settings import Settings

FOLDER = Path(__file__).parent
REPORT = FOLDER.parents[1] / 'work_dirs' / 'gpu_report.md'
WORKERS = 4


def main(arguments: list[str] | None = None) -> int:
    """Runs everything, writes the report and returns the tests' exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m tests.gpu',
        description='Tests every backend on a GPU, then times them and writes a report.',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=REPORT,
        metavar='FILE',
        help="file to write the report to (default: work_dirs/gpu_report.md in the repository's "
        'root)',
    )
    out = parser.parse_args(arguments).out
    if not torch.cuda.is_available():
        print('no GPU was found (torch.cuda.is_available() is False), so nothing was tested')
        return 0
    try:  # fails now rather than after minutes
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f'--out: cannot make the folder of {out}: {error.strerror}')
    if out.is_dir() or not os.access(out if out.exists() else out.parent, os.W_OK):
        parser.error(f'--out: cannot write {out}')
    os.environ.pop('TRITON_INTERPRET', None)
    code = pytest.main(pytest_options())
    print(f'timing, for {out} ...', flush=True)
    outcome = 'passed' if code == 0 else 'FAILED, see what this command printed'
    settings = Settings(threads=torch.get_num_threads())
    notes = [f'tests for GPUs: {outcome}']
    report = gpu.make_report(torch.device('cuda'), settings, notes=notes)
    print(report)
    out.write_text(report, encoding='utf-8')
    print(f'{out} can be pasted into an issue')
    return int(code)


def pytest_options() -> list[str]:
    """Returns the arguments for pytest."""
    # Skips tests/conftest.py, which makes Triton interpret and imports OpenMMLab, and the cache, as
    # the checkout may be read-only.
    options = [str(FOLDER), '--confcutdir', str(FOLDER), '-p', 'no:cacheprovider']
    if importlib.util.find_spec('xdist'):  # workers compile in parallel
        options += ['--numprocesses', str(WORKERS)]
    return [*options, '--durations', '0', '-q']


if __name__ == '__main__':
    sys.exit(main())
