"""Tests values and gradients of every backend that runs on the CPU."""

import pytest
import torch

from nat_mm.ops import neighborhood_attention_1d
from tests.ops.cases import CASES, SMALL_CASES, Case, make_inputs, outcome, run
from tests.ops.kernel import CPU
from tests.ops.oracle import attend


@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'nobias'])
@pytest.mark.parametrize('case', SMALL_CASES, ids=lambda case: case.name)
def test_reference_equals_nested_loops(case, bias):
    inputs = make_inputs(case, bias=bias)
    expected = attend(*inputs, case.kernel_pair, case.dilation_pair, 0.3)
    torch.testing.assert_close(run(case, 'reference', *inputs, scale=0.3), expected)


@pytest.mark.parametrize('backend', ['auto', 'portable', 'reference'])
@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'nobias'])
def test_sequence_equals_a_map_whose_columns_do_not_meet(bias, backend):
    """With a kernel of one column, each column of a map is a sequence."""
    case = Case(19, 2, (5, 1), (3, 1))
    query, key, value, table = make_inputs(case, bias=bias, dtype=torch.float32, head_dim=8)
    whole = run(case, 'reference', query, key, value, table)
    for column in range(2):
        found = neighborhood_attention_1d(
            *(tensor[:, :, column] for tensor in (query, key, value)),
            kernel_size=5,
            dilation=3,
            bias=None if table is None else table[..., 0],
            backend=backend,
        )
        torch.testing.assert_close(found, whole[:, :, column])
        assert found.is_contiguous()


@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'nobias'])
@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_portable_equals_reference_in_values_and_gradients(case, bias):
    inputs = make_inputs(case, bias=bias)
    expected = outcome(case, 'reference', inputs)
    actual = outcome(case, 'portable', inputs)
    for found, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('chunk_bytes', [1, 5000, 40000])
@pytest.mark.parametrize('case', [Case(27, 34, 7), Case(31, 38, 3, 5)], ids=lambda case: case.name)
def test_portable_does_not_depend_on_the_chunk_size(case, chunk_bytes, monkeypatch):
    from nat_mm.ops.backends import portable

    inputs = make_inputs(case)
    whole = outcome(case, 'portable', inputs)
    monkeypatch.setitem(portable.CHUNK_BYTES, 'cpu', chunk_bytes)
    chunked = outcome(case, 'portable', inputs)
    for found, wanted in zip(chunked, whole, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('backend', ['reference', 'portable'])
@pytest.mark.parametrize('case', SMALL_CASES, ids=lambda case: case.name)
def test_gradcheck(case, backend):
    inputs = [t.requires_grad_() for t in make_inputs(case, batch=1, head_dim=2)]
    assert torch.autograd.gradcheck(
        lambda *tensors: run(case, backend, *tensors), inputs, fast_mode=True
    )


@pytest.mark.parametrize('bias_dtype', [None, torch.float32], ids=['bias-low', 'bias-float32'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_low_precision_error_is_no_larger_than_the_reference_has(dtype, bias_dtype):
    case = Case(15, 18, 5, 2)
    low = make_inputs(case, head_dim=16, dtype=dtype, bias_dtype=bias_dtype)
    exact = outcome(case, 'reference', [t.double() for t in low])
    expected = outcome(case, 'reference', low)
    actual = outcome(case, 'portable', low)
    resolution = torch.finfo(dtype).eps
    for found, reference, truth in zip(actual, expected, exact, strict=True):
        assert found.dtype == reference.dtype
        size = truth.abs().max()
        reference_error = (reference.double() - truth).abs().max() / size
        assert (found.double() - truth).abs().max() / size <= 1.5 * reference_error + resolution / 4


def test_large_scores_do_not_overflow():
    case = Case(9, 10, 3)
    inputs = [100 * t for t in make_inputs(case, dtype=torch.float32)]
    expected = run(case, 'reference', *[t.double() for t in inputs])
    torch.testing.assert_close(
        run(case, 'portable', *inputs).double(), expected, rtol=1e-3, atol=1e-2
    )


@pytest.mark.parametrize('backend', ['reference', 'portable'])
def test_any_strides_and_a_contiguous_result(backend):
    case = Case(10, 12, 3, 2)
    inputs = make_inputs(case)
    packed = [t.contiguous() for t in inputs]
    odd_strides = [t.permute(4, 2, 0, 3, 1).contiguous().permute(2, 4, 1, 3, 0) for t in packed[:3]]
    assert not odd_strides[0].is_contiguous()
    expected = run(case, backend, *packed)
    actual = run(case, backend, *odd_strides, packed[3].mT.contiguous().mT)
    torch.testing.assert_close(actual, expected)
    assert actual.is_contiguous()


@pytest.mark.parametrize('backend', ['reference', 'portable'])
def test_empty_batch(backend):
    case = Case(9, 8, 3)
    output, *grads = outcome(case, backend, make_inputs(case, batch=0))
    assert output.shape == (0, 9, 8, 2, 4)
    assert grads[0].shape == output.shape
    assert not grads[3].any()


@pytest.mark.parametrize('backend', ['reference', 'portable', CPU])
def test_no_heads(backend):
    case = Case(9, 8, 3)
    inputs = make_inputs(case, heads=0, head_dim=8, dtype=torch.float32)
    output, *grads = outcome(case, backend, inputs)
    assert output.shape == (2, 9, 8, 0, 8)
    assert [grad.shape for grad in grads] == [tensor.shape for tensor in inputs]


@pytest.mark.parametrize('backend', ['reference', 'portable', 'auto'])
def test_shapes_on_the_meta_device(backend):
    case = Case(9, 8, 3)
    inputs = [tensor.to('meta') for tensor in make_inputs(case)]
    assert run(case, backend, *inputs).shape == inputs[0].shape


def test_gradients_of_some_inputs_only():
    case = Case(9, 8, 3)
    query, key, value, bias = make_inputs(case)
    bias.requires_grad_()
    grads = [
        torch.autograd.grad(run(case, backend, query, key, value, bias).square().sum(), bias)[0]
        for backend in ('reference', 'portable')
    ]
    torch.testing.assert_close(grads[1], grads[0])
