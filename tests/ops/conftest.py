"""Settings for the tests of the kernels."""

from collections.abc import Iterator

import pytest
import torch

from nat_mm.ops.backends import cpu
from tests.ops.interpretation import quick_interpreter
from tests.ops.kernel import AVAILABLE, PROBLEM


@pytest.fixture(params=['avx512', 'avx2', 'neon', 'generic'])
def instruction_set(request, monkeypatch):
    """Forces each available instruction set in turn."""
    if request.param not in AVAILABLE:
        pytest.skip(PROBLEM or f'this machine has no {request.param}')
    monkeypatch.setenv(cpu.ISA_VARIABLE, request.param)
    return request.param


@pytest.fixture
def poisoned_memory():
    """Makes PyTorch fill new memory with NaN, so that elements never written are noticed."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def set_threads():
    """``torch.set_num_threads``, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope='session', autouse=True)
def interpreter_is_quick() -> Iterator[None]:
    with quick_interpreter():
        yield
