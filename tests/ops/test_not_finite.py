"""Tests how far a NaN or infinity reaches with `portable`; test_cpu.py tests `cpu`."""

import pytest
import torch

from nat_mm.ops.backends import portable
from nat_mm.ops.tiling import all_tiles
from tests.ops.cases import Case, make_inputs, outcome, run

PLACES = [
    (Case(12, 23, 5), (6, 12)),
    (Case(12, 23, 5), (0, 22)),
    (Case(9, 27, (3, 5), (2, 2)), (8, 3)),
]


def spoilt(case, token, place, number, dtype=torch.float32):
    inputs = make_inputs(case, batch=2, head_dim=6, dtype=dtype)
    inputs = dict(zip(('query', 'key', 'value', 'bias'), inputs, strict=True))
    inputs[place][(1, 2, 3) if place == 'bias' else (0, *token, 1, 5)] = number
    return list(inputs.values())


def assert_same(found, expected, rtol=1e-4, atol=1e-5):
    """Checks that results are equal, with NaN and either infinity at the same places."""
    for found_one, expected_one in zip(found, expected, strict=True):
        torch.testing.assert_close(found_one, expected_one, rtol=rtol, atol=atol, equal_nan=True)


@pytest.mark.parametrize('number', [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize('place', ['query', 'key', 'value', 'bias'])
@pytest.mark.parametrize(('case', 'token'), PLACES, ids=['inside', 'corner', 'dilated'])
def test_on_the_cpu_it_reaches_exactly_what_depends_on_it(case, token, place, number):
    inputs = spoilt(case, token, place, number)
    assert_same(outcome(case, 'portable', inputs), outcome(case, 'reference', inputs))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize('number', [torch.nan, torch.inf], ids=str)
def test_of_any_element_type(number, dtype):
    case, token = PLACES[0]
    inputs = spoilt(case, token, 'value', number, dtype)
    found, expected = (outcome(case, backend, inputs) for backend in ('portable', 'reference'))
    assert_same(found, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize('place', ['value', 'key', 'query', 'output'])
def test_infinities_that_meet(place):
    """Their sum is an infinity or NaN, and so is their product with a weight or gradient."""
    case = Case(9, 13, 5)
    query, key, value, bias = make_inputs(case, batch=1, dtype=torch.float32)
    grad = torch.randn(query.shape, generator=torch.Generator().manual_seed(2))
    tensor = {'query': query, 'key': key, 'value': value, 'output': grad}[place]
    tensor[0, 2, 3, 0, :3] = torch.tensor([torch.inf, -torch.inf, torch.inf])
    tensor[0, 4, 4, 0, :3] = torch.tensor([torch.inf, torch.inf, 0])
    tensor[0, 8, 12, 1, 0] = -torch.inf
    results = []
    for backend in ('portable', 'reference'):
        inputs = [t.clone().requires_grad_() for t in (query, key, value, bias)]
        output = run(case, backend, *inputs)
        results.append([output.detach(), *torch.autograd.grad(output, inputs, grad)])
    assert_same(*results)
    if place in ('value', 'output'):
        spoilt_result = results[1][0 if place == 'value' else 3]
        for is_kind in (torch.isnan, torch.isposinf, torch.isneginf):
            assert is_kind(spoilt_result).any()


@pytest.mark.parametrize('number', [torch.nan, torch.inf], ids=str)
def test_gradient_of_the_output_that_is_not_finite(number):
    case = Case(12, 23, 5)
    found, expected = [], []
    for backend, results in (('portable', found), ('reference', expected)):
        inputs = [t.requires_grad_() for t in make_inputs(case, batch=1, dtype=torch.float32)]
        grad = torch.ones(1, 12, 23, 2, 4)
        grad[0, 6, 12, 1, 2] = number
        results += torch.autograd.grad(run(case, backend, *inputs), inputs, grad)
    assert_same(found, expected)


@pytest.mark.parametrize(('case', 'token'), PLACES, ids=['inside', 'corner', 'dilated'])
@pytest.mark.parametrize('place', ['query', 'key', 'value'])
def test_on_other_devices_it_reaches_the_tiles_around_it(case, token, place, monkeypatch):
    """Backward also reaches the keys that these tiles attend to; everything else is right."""
    monkeypatch.setattr(portable, '_spreads', lambda result: False)
    inputs = spoilt(case, token, place, torch.nan)
    query_reached, key_reached = (torch.zeros(1, case.height, case.width, 1, 1) for _ in 'qk')
    spot = query_reached.clone()
    spot[0, token[0], token[1]] = 1
    for tiles in all_tiles((case.height, case.width), case.kernel_pair, case.dilation_pair):
        reached = tiles.keys(spot).amax((-3, -2), keepdim=True)
        tiles.queries(query_reached).add_(reached)
        for index in reached.flatten().nonzero():
            place = torch.unravel_index(index, reached.shape[:6])
            tiles.keys(key_reached)[tuple(int(i) for i in place)] = 1
    output, grad_query, grad_key, grad_value, grad_bias = outcome(case, 'portable', inputs)
    expected = outcome(case, 'reference', inputs)
    for found, right, reached in zip(
        (output, grad_query, grad_key, grad_value),
        expected,
        (query_reached, query_reached, key_reached, key_reached),
        strict=False,
    ):
        beyond = (reached == 0).expand_as(found).clone()
        beyond[1] = True  # the other image
        beyond[:, :, :, 0] = True  # the other head
        torch.testing.assert_close(found[beyond], right[beyond], rtol=1e-4, atol=1e-5)
    if place == 'value':
        assert not output[0, :, :, 1, 5][query_reached[0, :, :, 0, 0] > 0].isfinite().any()
