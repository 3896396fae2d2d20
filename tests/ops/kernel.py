"""Finds whether the CPU kernel was built, for the tests that need it."""

import pytest

from nat_mm.ops.backends import cpu

PROBLEM = cpu.installation_problem()
AVAILABLE = () if PROBLEM else cpu.available_instruction_sets()
needs_kernel = pytest.mark.skipif(PROBLEM is not None, reason=str(PROBLEM))
CPU = pytest.param('cpu', marks=needs_kernel)
