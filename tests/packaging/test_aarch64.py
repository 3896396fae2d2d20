"""Tests the kernel in the wheel for 64-bit ARM, emulated with qemu."""

import re
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.ops.cases import Case, make_inputs, outcome

CSRC = Path(__file__).parents[2] / 'nat_mm' / 'ops' / 'csrc'
SYSTEM = '/usr/aarch64-linux-gnu'  # Debian's libraries for the cross compiler
# Together with the head dimensions, these cover all sizes of tiles, and borders on each side.
CASES = [
    Case(3, 3, 3),
    Case(12, 33, (3, 11), (4, 3)),
    Case(14, 31, 7, 2),
    Case(17, 26, 5, 3),
    Case(15, 14, 13),
]
SCALE = 0.3


@pytest.fixture(scope='module')
def emulate(aarch64_wheel, tmp_path_factory):
    """Runs the kernel on an input of run_kernel.cpp and returns its output."""
    if shutil.which('qemu-aarch64') is None:
        pytest.skip('there is no qemu-aarch64 (of qemu-user)')
    folder = tmp_path_factory.mktemp('aarch64')
    with zipfile.ZipFile(aarch64_wheel) as archive:
        library = archive.extract('nat_mm/ops/backends/libna2d.so', folder)
    source = Path(__file__).with_name('run_kernel.cpp')
    compile_program = ['aarch64-linux-gnu-g++', '-std=c++17', '-fopenmp', f'-I{CSRC}', source]
    subprocess.run([*compile_program, '-o', folder / 'program'], check=True)
    command = ['qemu-aarch64', '-L', SYSTEM, folder / 'program', library]
    return lambda text: subprocess.run(command, input=text, stdout=-1, check=True).stdout


def test_wheel_fits_what_pytorch_fits(aarch64_wheel):
    (minor,) = re.findall(r'-py3-none-manylinux_2_(\d+)_aarch64\.whl$', aarch64_wheel.name)
    assert int(minor) <= 28


def to_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def attend(emulate, case, inputs, isa, threads):
    """Returns the output and the gradients of query, key, value and bias, like with_gradients."""
    query, *_, bias = inputs
    numbers = [*query.shape, *case.kernel_pair, *case.dilation_pair]
    numbers += [[torch.float32, torch.bfloat16].index(query.dtype), isa, threads]
    generator = torch.Generator().manual_seed(1)
    grad_output = torch.randn(query.shape, generator=generator, dtype=torch.float64).to(query)
    tensors = [*inputs[:3], grad_output, bias.float()]
    output = emulate(struct.pack('12qd', *numbers, SCALE) + b''.join(map(to_bytes, tensors)))
    results = []
    for like in (*[query] * 4, bias.float()):
        size = like.numel() * like.element_size()
        found = torch.from_numpy(np.frombuffer(output[:size], np.uint8).copy())
        results.append(found.view(like.dtype).view(like.shape))
        output = output[size:]
    assert not output
    return results


@pytest.mark.parametrize('isa', [0, 3], ids=['generic', 'neon'])  # csrc/na2d.h
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=['float32', 'bfloat16'])
@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_kernel_equals_the_reference_in_float64(emulate, case, dtype, isa):
    inputs = make_inputs(case, batch=1, dtype=dtype, head_dim=24 if case.height % 2 else 16)
    exact = [tensor.double() for tensor in inputs]
    truths = outcome(case, 'reference', exact, scale=SCALE)
    bound = 5e-6 if dtype == torch.float32 else 4e-3
    alone = attend(emulate, case, inputs, isa, 1)
    for found, truth in zip(alone, truths, strict=True):
        assert float((found.double() - truth).norm() / truth.norm()) < bound
    together = attend(emulate, case, inputs, isa, 3)
    assert all(map(torch.equal, together, alone))
