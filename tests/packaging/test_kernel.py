"""Tests the operator of an installed package with and without the C++ kernel."""

import os
import shutil
import sys
from pathlib import Path

import pytest

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get('CXX', 'g++')) is None, reason='there is no C++ compiler'
)
ATTEND_AND_REPORT = """
import runpy
query = torch.randn(1, 9, 8, 2, 8, requires_grad=True)
output = neighborhood_attention_2d(query, query, query, kernel_size=3)
output.sum().backward()
expected = neighborhood_attention_2d(query, query, query, kernel_size=3, backend='reference')
torch.testing.assert_close(output, expected)
runpy.run_module('nat_mm.ops', run_name='__main__')
"""
"""Checks the operator, then runs ``python -m nat_mm.ops``, which exits: one import for both."""
IMPORT = """
import torch
from nat_mm.ops import neighborhood_attention_2d
print('imported', flush=True)
"""
RUNTIMES = """
import re
torch.set_num_threads(2)
query = torch.randn(1, 40, 41, 2, 8)
neighborhood_attention_2d(query, query, query, kernel_size=3, backend='cpu')
print(*set(re.findall(r'/\\S*(?:gomp|iomp|libomp)\\S*', open('/proc/self/maps').read())), sep='\\n')
"""


@pytest.fixture(scope='module')
def without_kernel(run, wheel_without_compiler, tmp_path_factory):
    """The output of the wheel built without a compiler, on import and later."""
    folder = tmp_path_factory.mktemp('without_kernel') / 'packages'
    pip = [sys.executable, '-m', 'pip', 'install', '--no-deps', '--no-index']
    run([*pip, '--target', folder, wheel_without_compiler], cwd=folder.parent)
    code = IMPORT + ATTEND_AND_REPORT
    command = [sys.executable, '-W', 'ignore:pkg_resources', '-c', code]
    return run(command, cwd=folder.parent, PYTHONPATH=str(folder)).partition('imported\n')


@pytest.fixture(scope='module')
def with_kernel(run, installed_python, tmp_path_factory):
    """The output of the wheel with the kernel, without a compiler: OpenMP runtimes and a report."""
    folder = tmp_path_factory.mktemp('with_kernel')
    code = IMPORT + RUNTIMES * Path('/proc/self/maps').exists() + 'print("end")' + ATTEND_AND_REPORT
    printed = run([installed_python, '-c', code], cwd=folder, PATH=str(folder))
    runtimes, _, report = printed.partition('imported\n')[2].partition('end\n')
    return runtimes, report


@needs_compiler
def test_kernel_serves_from_the_wheel_where_there_is_no_compiler(with_kernel):
    _, report = with_kernel
    assert "'auto' takes for float32: cpu" in report


@needs_compiler
@pytest.mark.skipif(not Path('/proc/self/maps').exists(), reason='reads /proc')
def test_process_has_one_openmp_runtime(with_kernel):
    runtimes, _ = with_kernel
    assert len(runtimes.splitlines()) == 1


def test_portable_serves_where_it_was_not(without_kernel):
    *_, report = without_kernel
    assert '  cpu: the kernel was not built' in report
    assert "'auto' takes for float32: portable" in report


def test_import_does_not_mention_the_missing_kernel(without_kernel):
    said, imported, _ = without_kernel
    assert (said, imported) == ('', 'imported\n')
