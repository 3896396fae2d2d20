"""Tests that scores up to 1e4, with most weights 0 or 1, are as exact as with `portable`."""

import functools

import pytest
import torch

from tests.ops.cases import Case, make_inputs, outcome
from tests.ops.kernel import needs_kernel

MAGNITUDES = [1.0, 10.0, 100.0, 1e3, 1e4]
SOURCES = ['query', 'scale', 'bias', 'common', 'common bias']
NAMES = ('output', 'query', 'key', 'value', 'bias')


def leveled(case, source, magnitude, head_dim, dtype):
    """Makes inputs whose scores lie about 1 apart on levels about ``magnitude`` apart, and a scale.

    Thus a query has neighbors of weight 0 as well as some that share the rest.
    """
    query, key, value, bias = make_inputs(case, batch=1, head_dim=head_dim)
    generator = torch.Generator().manual_seed(0)
    scale = head_dim**-0.5
    if source in ('query', 'scale'):
        level = torch.randint(3, (*key.shape[:4], 1), generator=generator)
        key = torch.cat((level, key[..., 1:] / magnitude), dim=-1)
        query = torch.cat((torch.full_like(query[..., :1], 1 / scale), query[..., 1:]), dim=-1)
        if source == 'query':
            query = query * magnitude
        else:
            scale = scale * magnitude
    elif source == 'common':  # the same large product for all pairs
        large = torch.full_like(query[..., :1], (magnitude / scale) ** 0.5)
        query, key = (torch.cat((large, tensor[..., 1:]), dim=-1) for tensor in (query, key))
    elif source == 'bias':
        bias = bias + magnitude * torch.randint(3, bias.shape, generator=generator)
    elif source == 'common bias':
        bias = bias + magnitude
    return [query.to(dtype), key.to(dtype), value.to(dtype), bias.float()], scale


@functools.cache
def problem(case, source, magnitude, head_dim, dtype):
    """Returns inputs, scale, exact results in float64, and the errors of `portable`."""
    inputs, scale = leveled(case, source, magnitude, head_dim, dtype)
    exact = [tensor.double() for tensor in inputs]
    truths = outcome(case, 'reference', exact, scale=scale)
    return inputs, scale, truths, errors(case, 'portable', inputs, scale, truths)


def errors(case, backend, inputs, scale, truths):
    found = outcome(case, backend, inputs, scale=scale)
    pairs = zip(found, truths, strict=True)
    return [float((mine.double() - truth).norm()) for mine, truth in pairs]


def check(backend, case, source, magnitude, head_dim, dtype):
    inputs, scale, truths, allowed = problem(case, source, magnitude, head_dim, dtype)
    found = errors(case, backend, inputs, scale, truths)
    epsilon = torch.finfo(torch.float32).eps
    for name, truth, mine, portable in zip(NAMES, truths, found, allowed, strict=True):
        assert mine <= 4 * portable + epsilon * (1 + float(truth.norm())), name


@needs_kernel
@pytest.mark.parametrize(
    ('magnitude', 'dtype'),
    [*((magnitude, torch.float32) for magnitude in MAGNITUDES), (1e4, torch.bfloat16)],
    ids=str,
)
@pytest.mark.parametrize('source', SOURCES)
def test_cpu(source, magnitude, dtype, instruction_set):
    check('cpu', Case(9, 19, 7), source, magnitude, 32, dtype)


@pytest.mark.parametrize('magnitude', MAGNITUDES[-2:], ids=str)
@pytest.mark.parametrize('source', SOURCES)
def test_triton(source, magnitude):
    """The kernels run in Triton's interpreter; each rounds products differently."""
    pytest.importorskip('triton', reason='PyTorch without Triton')
    check('triton', Case(7, 8, 3), source, magnitude, 32, torch.float32)


@needs_kernel
@pytest.mark.parametrize(
    ('case', 'head_dim'),
    [(Case(16, 19, 3, 2), 8), (Case(14, 15, 7, 2), 64), (Case(9, 30, 3), 24)],
    ids=lambda value: value.name if isinstance(value, Case) else f'head_dim{value}',
)
@pytest.mark.parametrize('source', SOURCES)
def test_cpu_at_1e4_for_other_windows(source, case, head_dim, instruction_set):
    check('cpu', case, source, 1e4, head_dim, torch.float32)


@needs_kernel
def test_weights_of_saturated_queries_are_exactly_one(instruction_set):
    """One neighbor of each query dominates: values pass unchanged, scores have no gradient."""
    case = Case(9, 20, 3)
    query, key, value, bias = make_inputs(case, head_dim=8, dtype=torch.float32)
    bias[:, 2, 2] = 1e6  # the bias of the token itself
    inputs = [query, key, value, bias]
    output, *grads = outcome(case, 'cpu', inputs)
    assert torch.equal(output[:, 1:-1, 1:-1], value[:, 1:-1, 1:-1])
    assert not grads[0][:, 1:-1, 1:-1].any()
