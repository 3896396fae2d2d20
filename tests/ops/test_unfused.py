"""Tests the scores and the weighted sums of neighbors separately."""

import pytest
import torch
from torch.testing import assert_close

from nat_mm.ops import neighborhood_attention_weights
from nat_mm.ops.backends import portable
from nat_mm.ops.unfused import neighbor_scores, neighbor_sums
from tests.ops.cases import CASES, SMALL_CASES, Case, make_inputs, outcome, with_gradients


def attend(case, query, key, value, bias, scale=0.3):
    """Computes the operator from its halves, on [B, H, W, heads, D]."""
    query, key, value = (tensor.movedim(3, 1) for tensor in (query, key, value))
    window = case.kernel_pair, case.dilation_pair
    weights = neighbor_scores(scale * query, key, bias, *window).softmax(-1)
    return neighbor_sums(weights, value, *window).movedim(1, 3)


@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'nobias'])
@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_both_halves_are_the_reference_in_values_and_gradients(case, bias):
    inputs = make_inputs(case, bias=bias)
    expected = outcome(case, 'reference', inputs, scale=0.3)
    found = with_gradients(lambda *tensors: attend(case, *tensors), inputs)
    assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('case', SMALL_CASES, ids=lambda case: case.name)
def test_scores_are_those_of_the_neighbors_row_by_row(case):
    query, key, _, bias = make_inputs(case)
    options = dict(kernel_size=case.kernel_size, dilation=case.dilation, bias=bias, scale=1.0)
    weights, near = neighborhood_attention_weights(query, key, **options)
    heads_first = query.movedim(3, 1), key.movedim(3, 1)
    window = case.kernel_pair, case.dilation_pair
    products = neighbor_scores(*heads_first, None, *window)
    near_key = key[:, near[..., 0], near[..., 1]]  # [B, H, W, kh * kw, heads, D]
    assert_close(products, torch.einsum('bhwnd,bhwknd->bnhwk', query, near_key))
    scores = neighbor_scores(*heads_first, bias, *window)
    assert_close(scores.softmax(-1), weights.movedim(3, 1))


@pytest.mark.parametrize('case', SMALL_CASES, ids=lambda case: case.name)
def test_first_and_second_derivatives(case):
    inputs = [t.requires_grad_() for t in make_inputs(case, batch=1, heads=1, head_dim=2)]
    assert torch.autograd.gradcheck(lambda *t: attend(case, *t), inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *t: attend(case, *t), inputs, fast_mode=True)


def test_result_does_not_depend_on_the_chunk_size(monkeypatch):
    case = Case(27, 34, 7)
    inputs = make_inputs(case)
    whole = with_gradients(lambda *tensors: attend(case, *tensors), inputs)
    monkeypatch.setitem(portable.CHUNK_BYTES, 'cpu', 5000)
    assert_close(with_gradients(lambda *tensors: attend(case, *tensors), inputs), whole)


def test_low_precision_is_summed_in_float32():
    """This holds even under autocast, which would multiply float32 in bfloat16."""
    case = Case(9, 11, 5)
    query, key, value, _ = make_inputs(case, dtype=torch.float32, head_dim=32)
    window = case.kernel_pair, case.dilation_pair
    plain = neighbor_scores(query.movedim(3, 1), key.movedim(3, 1), None, *window)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(
            neighbor_scores(query.movedim(3, 1), key.movedim(3, 1), None, *window), plain
        )
    low = value.movedim(3, 1).bfloat16()
    sums = neighbor_sums(plain.softmax(-1), low, *window)
    exact = neighbor_sums(plain.softmax(-1).bfloat16().double(), low.double(), *window)
    assert_close(sums, exact.bfloat16())


def test_results_are_contiguous():
    query, key, value, _ = make_inputs(Case(9, 11, 3))
    weights = neighbor_scores(query.movedim(3, 1), key.movedim(3, 1), None, (3, 3), (1, 1))
    assert weights.is_contiguous()
    assert neighbor_sums(weights, value.movedim(3, 1), (3, 3), (1, 1)).is_contiguous()
