"""Tests folding the bias into the head dimension, and the NATTEN backend that uses it."""

import sys
import types

import pytest
import torch
import torch.nn.functional as F

from nat_mm.ops import neighborhood_attention_2d
from nat_mm.ops.backends import natten as natten_backend
from nat_mm.ops.folding import fold_bias
from tests.ops.cases import CASES, Case, make_inputs, with_gradients

SCALE = 0.4


def reference(case, query, key, value, bias, scale=SCALE):
    return neighborhood_attention_2d(
        query,
        key,
        value,
        bias=bias,
        kernel_size=case.kernel_size,
        dilation=case.dilation,
        scale=scale,
        backend='reference',
    )


def fold(case, query, key, bias, **options):
    return fold_bias(
        query,
        key,
        bias,
        kernel_size=case.kernel_pair,
        dilation=case.dilation_pair,
        scale=SCALE,
        **options,
    )


def unbiased(case, query, key, value, scale=SCALE):
    """Computes attention without bias for a value narrower than query and key."""
    width = query.shape[-1] - value.shape[-1]
    output = reference(case, query, key, F.pad(value, (0, width)), None, scale)
    return output[..., : value.shape[-1]]


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_folded_equals_biased_in_values_and_all_gradients(case):
    def folded(query, key, value, bias):
        return unbiased(case, *fold(case, query, key, bias), value)

    # The reference gathers 169 more channels for each key of a 13 x 13 window.
    inputs = make_inputs(case, batch=1 if case.kernel_size == 13 else 2)
    expected = with_gradients(lambda *tensors: reference(case, *tensors), inputs)
    for found, wanted in zip(with_gradients(folded, inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ('kernel_size', 'head_dim', 'multiple_of', 'width'),
    [(7, 32, 8, 88), (7, 32, 1, 81), (3, 7, 8, 16), ((3, 5), 16, 64, 64)],
)
def test_padded_width(kernel_size, head_dim, multiple_of, width):
    case = Case(9, 10, kernel_size)
    query, key, _, bias = make_inputs(case, head_dim=head_dim)
    query, key = fold(case, query, key, bias, multiple_of=multiple_of)
    assert query.shape == key.shape == (2, 9, 10, 2, width)


def test_natten_without_kernels_of_its_own_gives_the_same():
    """NATTEN's flex backend runs on the CPU if all widths are equal powers of two."""
    natten = pytest.importorskip('natten', reason='natten is not installed')
    for case in (Case(9, 11, 3), Case(15, 20, (7, 5), (2, 3)), Case(14, 29, 7, 2)):
        query, key, value, bias = make_inputs(case, dtype=torch.float32, head_dim=8)
        wide_query, wide_key = fold(case, query, key, bias, multiple_of=64)
        wide_value = F.pad(value, (0, wide_query.shape[-1] - 8))
        output = natten.na2d(
            wide_query,
            wide_key,
            wide_value,
            kernel_size=case.kernel_size,
            dilation=case.dilation,
            scale=SCALE,
            backend='flex-fna',
        )
        torch.testing.assert_close(output[..., :8], reference(case, query, key, value, bias))


@pytest.fixture
def stand_in(monkeypatch):
    """Replaces ``natten`` with a module that uses the reference and records its inputs."""
    calls = []

    def na2d(query, key, value, *, kernel_size, dilation, scale):
        calls.append((query, key, value))
        return unbiased(Case(0, 0, kernel_size, dilation), query, key, value, scale)

    module = types.ModuleType('natten')
    module.na2d = na2d
    monkeypatch.setitem(sys.modules, 'natten', module)
    return calls


@pytest.mark.parametrize('head_dim', [8, 12])
@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'nobias'])
def test_adapter_equals_reference_and_meets_nattens_rules(stand_in, bias, head_dim):
    case = Case(17, 26, 5, 3)
    inputs = make_inputs(case, head_dim=head_dim, bias=bias)

    def adapter(*tensors):
        return natten_backend.forward(*tensors, case.kernel_pair, case.dilation_pair, SCALE)

    expected = with_gradients(lambda *tensors: reference(case, *tensors), inputs)
    for found, wanted in zip(with_gradients(adapter, inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    ((query, key, value),) = stand_in
    assert query.shape == key.shape
    assert query.shape[-1] % 8 == 0
    assert value.shape[-1] == -(-head_dim // 8) * 8


def test_adapter_under_autocast(stand_in, monkeypatch):
    monkeypatch.setattr(natten_backend, 'unsupported_reasons', lambda *arguments: [])
    query, key, value, bias = make_inputs(Case(9, 8, 3), dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        output = neighborhood_attention_2d(
            query, key, value, bias=bias, kernel_size=3, backend='natten'
        )
    assert {tensor.dtype for tensor in (output, *stand_in[0])} == {torch.bfloat16}


@pytest.mark.parametrize(
    ('device', 'dtype', 'problem', 'reasons'),
    [
        ('cpu', torch.float32, None, ['only CUDA tensors']),
        ('cpu', torch.float64, None, ['only CUDA tensors', 'float64']),
        ('cuda', torch.float64, None, ['float64']),
        ('cuda', torch.float16, 'NATTEN is not installed', ['not installed']),
        ('cuda', torch.bfloat16, None, []),
    ],
)
def test_reasons(device, dtype, problem, reasons, monkeypatch):
    monkeypatch.setattr(natten_backend, 'installation_problem', lambda: problem)
    query = types.SimpleNamespace(device=torch.device(device), dtype=dtype)
    found = natten_backend.unsupported_reasons(query, None, (7, 7))
    assert len(found) == len(reasons)
    assert all(part in text for part, text in zip(reasons, found, strict=True))


def test_asking_for_natten_is_no_graph_break():
    def function(x):
        return x + len(natten_backend.installation_problem() or '')

    compiled = torch.compile(function, fullgraph=True, backend='eager')
    assert compiled(torch.zeros(1)) == function(torch.zeros(1))


def test_natten_takes_no_axis_without_neighbors():
    query = torch.empty(1, 7, 7, 1, 8, dtype=torch.float16)
    found = natten_backend.unsupported_reasons(query, None, (1, 7))
    assert 'kernel_size must be at least 2 on each axis, got (1, 7)' in found
