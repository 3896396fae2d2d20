"""Tests the peak memory of the backends."""

import re
import sys
from pathlib import Path

import pytest
import torch

from nat_mm.ops import neighborhood_attention_2d
from tests.ops.kernel import needs_kernel
from tests.processes import run_alone


def resident_mebibytes(field):
    status = Path('/proc/self/status').read_text()
    return int(re.search(field + r':\s+(\d+) kB', status).group(1)) / 1024


def measure(height, width, backend):
    """Returns the MiB used beyond the inputs and the MiB of the results."""
    torch.set_num_threads(2)
    small = torch.randn(1, 24, 24, 3, 2, 32, requires_grad=True)
    bias = torch.randn(2, 13, 13, requires_grad=True)
    options = dict(kernel_size=7, bias=bias, backend=backend)
    neighborhood_attention_2d(*small.unbind(3), **options).sum().backward()
    query, key, value = (torch.randn(1, height, width, 2, 32) for _ in range(3))
    grad_output = torch.randn(1, height, width, 2, 32)
    for tensor in (query, key, value):
        tensor.requires_grad_()
    start = resident_mebibytes('VmRSS')
    output = neighborhood_attention_2d(query, key, value, **options)
    grads = torch.autograd.grad(output, (query, key, value, bias), grad_output)
    results = sum(tensor.numel() * 4 / 2**20 for tensor in (output, *grads))
    return resident_mebibytes('VmHWM') - start, results


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
@pytest.mark.parametrize(
    ('backend', 'limit'), [pytest.param('cpu', 64, marks=needs_kernel), ('portable', 256)]
)
@pytest.mark.parametrize(('height', 'width'), [(200, 336), (400, 672)])
def test_transient_memory_is_bounded_at_any_resolution(height, width, backend, limit):
    above_inputs, results = run_alone(measure, height, width, backend)
    assert above_inputs - results < limit
    if (height, width) == (200, 336):
        assert above_inputs < 1024
