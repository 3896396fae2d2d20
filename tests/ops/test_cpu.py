"""Tests values and gradients of the C++ kernel with each instruction set."""

import functools
import math
import random

import pytest
import torch

from nat_mm.ops.window import axis_window
from tests.ops import cases
from tests.ops.cases import CASES, Case, make_inputs
from tests.ops.kernel import needs_kernel

pytestmark = [needs_kernel, pytest.mark.usefixtures('poisoned_memory')]
SCALE = 0.3
run = functools.partial(cases.run, scale=SCALE)
outcome = functools.partial(cases.outcome, scale=SCALE)
# The kernel processes 40 x 130 in several parts.
KERNEL_CASES = [*CASES, Case(10, 11, 5, 2), Case(40, 130, 3), Case(37, 41, (3, 13), (5, 1))]


def relative_error(found, truth):
    return float((found.double() - truth).norm() / truth.norm())


@functools.cache
def case_and_truth(case, bias, head_dim):
    inputs = make_inputs(case, bias=bias, head_dim=head_dim, dtype=torch.float32)
    exact = [None if tensor is None else tensor.double() for tensor in inputs]
    return inputs, outcome(case, 'reference', exact)


@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'nobias'])
@pytest.mark.parametrize('case', KERNEL_CASES, ids=lambda case: case.name)
def test_float32_equals_the_reference_in_float64(case, bias, instruction_set):
    inputs, truths = case_and_truth(case, bias, 32 if case.height < 30 else 8)
    for found, truth in zip(outcome(case, 'cpu', inputs), truths, strict=True):
        assert relative_error(found, truth) < 5e-6


@pytest.mark.parametrize('head_dim', [8, 16, 24, 40, 64])
def test_head_dims(head_dim, instruction_set):
    case = Case(8, 21, 7)
    inputs, truths = case_and_truth(case, True, head_dim)
    for found, truth in zip(outcome(case, 'cpu', inputs), truths, strict=True):
        assert relative_error(found, truth) < 5e-6


def rearranged(tensor, layout):
    """Returns the same numbers with other strides."""
    if layout == 'packed':
        return tensor.contiguous()
    if layout == 'channels-first':  # the last dimension is not contiguous
        return tensor.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    if layout == 'heads-first':
        return tensor.transpose(1, 3).contiguous().transpose(1, 3)
    if layout == 'cropped':
        batch, height, width, heads, head_dim = tensor.shape
        larger = torch.full((batch, height + 2, 2 * width, heads, head_dim + 3), torch.nan)
        view = larger.to(tensor.dtype)[:, 1:-1, ::2, :, 1:-2]
        return view.copy_(tensor)
    return tensor


@functools.cache
def random_problem(seed):
    """Returns inputs, exact results in float64 and, for bfloat16, the results of the reference."""
    choose = random.Random(seed).choice
    kernel_size = choose([3, 5, 7, 9, 11, 13]), choose([3, 5, 7, 9, 11, 13])
    if choose([True, True, False]):
        kernel_size = (kernel_size[0],) * 2
    dilation = choose([1, 1, 2, 3]), choose([1, 1, 2, 4])
    height = kernel_size[0] * dilation[0] + choose([0, 1, 2, 9])
    width = kernel_size[1] * dilation[1] + choose([0, 1, 2, 9, 30])
    case = Case(height, width, kernel_size, dilation)
    dtype = choose([torch.float32, torch.bfloat16])
    query, key, value, bias = make_inputs(
        case,
        batch=choose([1, 2]),
        heads=choose([1, 2, 3]),
        head_dim=choose([8, 16, 24, 32, 32]),
        dtype=dtype,
        bias=choose([True, True, False]),
        bias_dtype=choose([dtype, torch.float32, torch.float64]),
        seed=seed,
    )
    low = [query, key, value, bias]
    exact = [None if tensor is None else tensor.double() for tensor in low]
    truths = outcome(case, 'reference', exact)
    # Errors in float32 are bounded by a constant, not by those of the reference.
    references = outcome(case, 'reference', low) if dtype == torch.bfloat16 else truths
    layouts = ['projected', 'packed', 'channels-first', 'heads-first', 'cropped']
    low[:3] = [rearranged(tensor, choose(layouts)) for tensor in low[:3]]
    return case, low, references, truths, choose([1, 2, 3])


@pytest.mark.parametrize('seed', range(40))
def test_random_problems(seed, instruction_set, set_threads):
    case, inputs, references, truths, threads = random_problem(seed)
    set_threads(threads)
    leaves = [None if t is None else t.detach().requires_grad_() for t in inputs]
    output = run(case, 'cpu', *leaves)
    generator = torch.Generator().manual_seed(1)  # as in with_gradients
    grad_output = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    wanted = [leaf for leaf in leaves if leaf is not None]
    found = [output, *torch.autograd.grad(output, wanted, grad_output.to(output.dtype))]
    # The gradients of query, key and value are slices of one tensor.
    packed = found[1]._base
    assert torch.equal(torch.stack(found[1:4], 3), packed)
    assert all(tensor.is_contiguous() for tensor in (output, packed, *found[4:]))
    dtypes = [inputs[0].dtype, *(leaf.dtype for leaf in wanted)]
    for found_one, reference, truth, dtype in zip(found, references, truths, dtypes, strict=True):
        found_one = found_one.detach()
        assert found_one.dtype == dtype
        if inputs[0].dtype == torch.float32:
            assert relative_error(found_one, truth) < 5e-6
        else:
            assert relative_error(found_one, truth) <= 1.5 * relative_error(reference, truth)


def test_statistics(instruction_set):
    case = Case(9, 19, 3, (3, 2))
    query, key, value, _ = make_inputs(case, dtype=torch.float32, head_dim=8)
    forward = torch.ops.nat_mm.na2d_cpu.default
    _, (largest, total) = forward(query, key, value, None, [3, 3], [3, 2], SCALE)
    rows, _ = axis_window(9, 3, 3)
    columns, _ = axis_window(19, 3, 2)
    near_key = key[:, rows][:, :, :, columns]  # [B, H, kh, W, kw, heads, head_dim]
    scores = SCALE * torch.einsum('bhwnd,bhiwjnd->bhwnij', query, near_key).flatten(-2)
    # The kernel computes with powers of 2.
    torch.testing.assert_close(largest * math.log(2), scores.amax(-1))
    torch.testing.assert_close(total, (scores - scores.amax(-1, keepdim=True)).exp().sum(-1))


@pytest.mark.parametrize('number', [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize('place', ['query', 'key', 'value', 'bias'])
@pytest.mark.parametrize(
    ('case', 'token'),
    [(Case(12, 37, 5), (6, 18)), (Case(12, 37, 5), (0, 36)), (Case(14, 41, 7, 2), (3, 20))],
    ids=['inside', 'corner', 'dilated'],
)
def test_nan_and_infinity_reach_exactly_what_depends_on_them(
    case, token, place, number, instruction_set
):
    inputs = dict(zip(('query', 'key', 'value', 'bias'), make_inputs(
        case, batch=1, head_dim=8, dtype=torch.float32
    ), strict=True))  # fmt: skip
    index = (1, 2, 3) if place == 'bias' else (0, *token, 1, 5)
    inputs[place][index] = number
    found = outcome(case, 'cpu', inputs.values())
    expected = outcome(case, 'reference', inputs.values())
    assert not expected[0].isfinite().all() or number == -torch.inf
    for found_one, expected_one in zip(found, expected, strict=True):
        torch.testing.assert_close(found_one, expected_one, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_large_scores_do_not_overflow(instruction_set):
    case = Case(9, 20, 3)
    inputs = [100 * t for t in make_inputs(case, head_dim=8, dtype=torch.float32)]
    expected = run(case, 'reference', *[t.double() for t in inputs])
    assert relative_error(run(case, 'cpu', *inputs), expected) < 1e-4


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_the_same_bits_in_every_run_and_for_any_number_of_threads(
    dtype, instruction_set, set_threads
):
    case = Case(40, 130, 5)
    inputs = make_inputs(case, head_dim=8, dtype=dtype)
    set_threads(1)
    expected = outcome(case, 'cpu', inputs)
    for threads in (1, 2, 2, 3):
        set_threads(threads)
        for found, wanted in zip(outcome(case, 'cpu', inputs), expected, strict=True):
            assert torch.equal(found, wanted)


def test_empty_batch():
    case = Case(9, 8, 3)
    inputs = make_inputs(case, batch=0, head_dim=8, dtype=torch.float32)
    output, *grads = outcome(case, 'cpu', inputs)
    assert output.shape == grads[0].shape == (0, 9, 8, 2, 8)
    assert not grads[3].any()


def test_gradient_of_an_expanded_tensor():
    case = Case(9, 8, 3)
    query, key, value, bias = make_inputs(case, batch=1, head_dim=8, dtype=torch.float32)
    grads = []
    for backend in ('cpu', 'reference'):
        leaf = query.detach().requires_grad_()
        shared = [tensor.expand(3, -1, -1, -1, -1) for tensor in (leaf, key, value)]
        # The gradient of a sum is a single number with strides of zero.
        (2 * run(case, backend, *shared, bias)).sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)
