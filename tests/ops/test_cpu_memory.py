"""Tests that nothing outside the tensors is read or written; the command is in docs/cpu.md."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / 'nat_mm' / 'ops' / 'csrc'
COMPILER = os.environ.get('CXX', 'g++')
# Without optimization, compiling takes a quarter of the time, and the checks are the same.
OPTIONS = ['-std=c++17', '-O0', '-fsanitize=address', '-fopenmp', f'-I{CSRC}']
FLAGS = {CSRC / 'na2d.cpp': [], CSRC / 'kernels_generic.cpp': []}
if platform.machine() == 'x86_64':
    avx512 = ['-mavx512f', '-mavx512dq', '-mavx512bw', '-mavx512vl']
    FLAGS[CSRC / 'kernels_avx2.cpp'] = ['-mavx2', '-mfma']
    FLAGS[CSRC / 'kernels_avx512.cpp'] = [*avx512, '-mfma']
elif platform.machine() == 'aarch64':
    FLAGS[CSRC / 'kernels_neon.cpp'] = []
FLAGS[Path(__file__).with_name('memory_check.cpp')] = []


def compiles_with_address_sanitizer(folder):
    if shutil.which(COMPILER) is None:
        return False
    (folder / 'empty.cpp').write_text('int main() {}')
    command = [COMPILER, *OPTIONS, 'empty.cpp', '-o', 'empty']
    return subprocess.run(command, cwd=folder, capture_output=True).returncode == 0


def test_the_kernel_stays_inside_its_memory(tmp_path):
    if not compiles_with_address_sanitizer(tmp_path):
        pytest.skip(f'{COMPILER} is no g++ with AddressSanitizer')
    compilers = [
        subprocess.Popen([COMPILER, *OPTIONS, *flags, '-c', path], cwd=tmp_path)
        for path, flags in FLAGS.items()
    ]
    assert [compiler.wait() for compiler in compilers] == [0] * len(FLAGS)
    objects = [f'{path.stem}.o' for path in FLAGS]
    subprocess.run([COMPILER, *OPTIONS, *objects, '-o', 'check'], cwd=tmp_path, check=True)
    environment = {**os.environ, 'ASAN_OPTIONS': 'detect_leaks=0'}  # leak detection needs ptrace
    result = subprocess.run([tmp_path / 'check'], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert 'runs' in result.stdout
