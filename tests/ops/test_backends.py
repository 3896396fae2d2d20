"""Tests the choice of a backend, and what `python -m nat_mm.ops` reports about it."""

import os
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from nat_mm.ops import __main__ as command
from nat_mm.ops import neighborhood_attention_2d
from nat_mm.ops.backends import BACKENDS, choose_backend, cpu
from tests.ops.cases import Case, make_inputs, outcome, run, with_gradients
from tests.ops.kernel import AVAILABLE, needs_kernel
from tests.processes import ForkedPython

ROOT = Path(__file__).parents[2]


def choose(dtype=torch.float32, head_dim=8, kernel_size=(3, 3), device='cpu'):
    query = torch.empty(1, 20, 20, 1, head_dim, dtype=dtype, device=device)
    return choose_backend('auto', query, None, kernel_size)


@pytest.fixture
def other_library(monkeypatch):
    """Sets the file that the kernel is loaded from, for one test."""

    def forget():
        cpu._find_installation_problem.cache_clear()
        cpu._library.cache_clear()

    def point_to(path):
        monkeypatch.setattr(cpu, 'LIBRARY', path)
        forget()

    yield point_to
    forget()


@needs_kernel
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_auto_takes_the_kernel_on_the_cpu(dtype):
    assert choose(dtype=dtype) == 'cpu'


@needs_kernel
@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        ({'dtype': torch.float64}, 'supports float32 and bfloat16, got torch.float64'),
        ({'dtype': torch.float16}, 'supports float32 and bfloat16, got torch.float16'),
        ({'head_dim': 12}, 'head_dim must be a multiple of 8, got 12'),
        ({'kernel_size': (3, 15)}, r'kernel_size must be at most 13, got \(3, 15\)'),
        ({'device': 'meta'}, 'supports only CPU tensors, got a tensor on meta'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_what_the_kernel_does_not_serve_is_left_to_portable(arguments, reason):
    assert choose(**arguments) == 'portable'
    options = {'dtype': torch.float32, 'head_dim': 8, 'kernel_size': (3, 3), 'device': 'cpu'}
    options |= arguments
    query = torch.empty(
        1, 20, 20, 1, options['head_dim'], dtype=options['dtype'], device=options['device']
    )
    with pytest.raises(ValueError, match=f'cpu: {reason}'):
        neighborhood_attention_2d(
            query, query, query, kernel_size=options['kernel_size'], backend='cpu'
        )


def test_portable_serves_where_the_kernel_was_not_built(other_library, tmp_path, capsys):
    other_library(tmp_path / 'libna2d.so')
    assert choose() == 'portable'
    query, key, value, bias = make_inputs(Case(9, 8, 3), dtype=torch.float32, head_dim=8)
    with pytest.raises(ValueError, match='cpu: the kernel was not built .*libna2d.so is missing'):
        neighborhood_attention_2d(query, key, value, kernel_size=3, backend='cpu')
    output = neighborhood_attention_2d(query, key, value, kernel_size=3, bias=bias)
    expected = neighborhood_attention_2d(
        query, key, value, kernel_size=3, bias=bias, backend='reference'
    )
    torch.testing.assert_close(output, expected)
    assert command.main() == 0
    printed = capsys.readouterr().out
    assert '  cpu: the kernel was not built' in printed
    assert "'auto' takes for float32: portable" in printed
    assert 'instruction set' not in printed


def test_a_broken_library_is_a_reason_too(other_library, tmp_path):
    broken = tmp_path / 'libna2d.so'
    broken.write_text('no library')
    other_library(broken)
    assert choose() == 'portable'
    assert 'the kernel cannot be loaded: ' in cpu.installation_problem()


@needs_kernel
def test_a_library_of_another_version_is_not_called(other_library, monkeypatch):
    monkeypatch.setattr(cpu, '_INTERFACE', -1)
    other_library(cpu.LIBRARY)
    assert choose() == 'portable'
    assert 'this version of nat_mm needs -1' in cpu.installation_problem()


@needs_kernel
def test_unknown_instruction_set_is_refused(monkeypatch):
    monkeypatch.setenv(cpu.ISA_VARIABLE, 'bogus')
    query, key, value, _ = make_inputs(Case(9, 8, 3), dtype=torch.float32, head_dim=8)
    available = ', '.join(AVAILABLE)
    with pytest.raises(ValueError, match=f"must be one of {available} on this machine.*'bogus'"):
        neighborhood_attention_2d(query, key, value, kernel_size=3)


@needs_kernel
def test_forced_instruction_set_is_the_one_that_runs(instruction_set):
    query = torch.empty(1, 9, 8, 1, 8)
    assert cpu.instruction_set() == instruction_set
    numbers = {'generic': 0, 'avx2': 1, 'avx512': 2, 'neon': 3}  # csrc/na2d.h
    assert cpu._problem(query, (3, 3), (1, 1), 1.0).isa == numbers[instruction_set]


@pytest.mark.parametrize('name', ['cpu', 'portable'])
@pytest.mark.parametrize('compiled', [False, True], ids=['eager', 'compiled'])
def test_gradient_of_a_transposed_bias(name, compiled):
    case = Case(9, 8, 3)
    inputs = make_inputs(case, dtype=torch.float32, head_dim=8)
    inputs = [*inputs[:3], inputs[3].mT]
    if reasons := BACKENDS[name].unsupported_reasons(inputs[0], inputs[3], (3, 3)):
        pytest.skip(reasons[0])

    def attend(*tensors):
        return run(case, name, *tensors)

    expected = outcome(case, 'reference', inputs)
    if compiled:
        attend = torch.compile(attend, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(with_gradients(attend, inputs), expected)


@needs_kernel
def test_command_prints_backends_and_how_the_kernel_runs(monkeypatch, capsys):
    monkeypatch.setenv('NAT_MM_CPU_ISA', 'generic')
    assert command.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert '  cpu: available' in lines
    assert "  'auto' takes for bfloat16: cpu" in lines
    assert '  natten: supports only CUDA tensors, got a tensor on cpu' in lines
    assert lines[-3:] == [
        '  instruction set: generic',
        f'  available: {", ".join(AVAILABLE)}',
        f'  threads: {torch.get_num_threads()}',
    ]


def test_on_a_gpu_triton_comes_before_natten(monkeypatch, capsys):
    for name in ('triton', 'natten'):
        monkeypatch.setattr(BACKENDS[name], 'unsupported_reasons', lambda *_: [])
    with FakeTensorMode():
        command._print_device('cuda')
    lines = capsys.readouterr().out.splitlines()
    order = 'cpu, triton, natten, portable, reference'
    assert f"  'auto' takes the first available of: {order}" in lines
    assert "  'auto' takes for bfloat16: triton" in lines


@needs_kernel
def test_command_reports_a_mistake_in_one_line():
    """The command runs in its own process because of its exit code."""
    environment = {**os.environ, 'NAT_MM_CPU_ISA': 'bogus'}
    process = ForkedPython([sys.executable, '-m', 'nat_mm.ops'], env=environment)
    output = process.stdout.read()
    assert process.wait() == 2
    (line,) = [line for line in output.splitlines() if line.startswith('error: ')]
    assert "got 'bogus'" in line
    assert 'Traceback' not in output
