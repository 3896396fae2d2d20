"""The operator of an installed package, with and without the C++ kernel."""

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
import torch
from nat_mm.ops import neighborhood_attention_2d
query = torch.randn(1, 9, 8, 2, 8, requires_grad=True)
output = neighborhood_attention_2d(query, query, query, kernel_size=3)
output.sum().backward()
expected = neighborhood_attention_2d(query, query, query, kernel_size=3, backend='reference')
torch.testing.assert_close(output, expected)
runpy.run_module('nat_mm.ops', run_name='__main__')
"""
"""As ``python -m nat_mm.ops``, whose exit code ends it, and what needs an import as long."""
RUNTIMES = """
import re
import torch
from nat_mm.ops import neighborhood_attention_2d
torch.set_num_threads(2)
query = torch.randn(1, 40, 41, 2, 8)
neighborhood_attention_2d(query, query, query, kernel_size=3, backend='cpu')
print(*set(re.findall(r'/\\S*(?:gomp|iomp|libomp)\\S*', open('/proc/self/maps').read())), sep='\\n')
"""


@pytest.fixture(scope='module')
def without_kernel(run, wheel_without_compiler, tmp_path_factory):
    """Runs Python with the wheel that was built without a compiler."""
    folder = tmp_path_factory.mktemp('without_kernel') / 'packages'
    pip = [sys.executable, '-m', 'pip', 'install', '--no-deps', '--no-index']
    run([*pip, '--target', folder, wheel_without_compiler], cwd=folder.parent)

    def run_python(*arguments):
        return run([sys.executable, *arguments], cwd=folder.parent, PYTHONPATH=str(folder))

    return run_python


@needs_compiler
def test_kernel_serves_from_the_wheel_where_there_is_no_compiler(run, installed_python, tmp_path):
    nothing = {'PATH': str(tmp_path)}
    printed = run([installed_python, '-c', ATTEND_AND_REPORT], cwd=tmp_path, **nothing)
    assert "'auto' takes for float32: cpu" in printed


@needs_compiler
@pytest.mark.skipif(not Path('/proc/self/maps').exists(), reason='reads /proc')
def test_process_has_one_openmp_runtime(run, installed_python, tmp_path):
    assert len(run([installed_python, '-c', RUNTIMES], cwd=tmp_path).splitlines()) == 1


def test_portable_serves_where_it_was_not(without_kernel):
    printed = without_kernel('-c', ATTEND_AND_REPORT)
    assert '  cpu: the kernel was not built' in printed
    assert "'auto' takes for float32: portable" in printed


def test_import_does_not_mention_the_missing_kernel(without_kernel):
    assert without_kernel('-W', 'ignore:pkg_resources', '-c', 'import nat_mm') == ''
