"""Settings for the tests of the CPU kernel."""

import pytest
import torch

from nat_mm.ops.backends import cpu
from tests.ops.kernel import AVAILABLE, PROBLEM


@pytest.fixture(params=['avx512', 'avx2', 'neon', 'generic'])
def instruction_set(request, monkeypatch):
    """Each instruction set in turn, forced."""
    if request.param not in AVAILABLE:
        pytest.skip(PROBLEM or f'this machine has no {request.param}')
    monkeypatch.setenv(cpu.ISA_VARIABLE, request.param)
    return request.param


@pytest.fixture
def poisoned_memory():
    """Lets PyTorch fill what it allocates with NaN, so that an element never written is seen."""
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
