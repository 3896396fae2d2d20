"""The operator inside PyTorch: checks of its registration, compilation, autocast, FLOPs."""

import pytest
import torch
from mmengine.analysis import FlopAnalyzer

from nat_mm.layers import NeighborhoodAttention2D
from nat_mm.ops import flop_handles, neighborhood_attention_2d
from tests.ops.cases import Case, make_inputs

CASE = Case(9, 14, 3, (2, 3))
OPERATOR = torch.ops.nat_mm.na2d_portable.default


@pytest.mark.parametrize('grad', [True, False], ids=['grad', 'nograd'])
@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'nobias'])
def test_opcheck(bias, grad):
    inputs = [
        None if t is None else t.detach().requires_grad_(grad)
        for t in make_inputs(CASE, bias=bias, dtype=torch.float32)
    ]
    arguments = (*inputs, list(CASE.kernel_pair), list(CASE.dilation_pair), 0.5)
    torch.library.opcheck(OPERATOR, arguments)


@pytest.mark.parametrize(
    ('backend', 'dynamic'),
    [('auto', False), ('auto', True), ('reference', False)],
    ids=['auto-static', 'auto-dynamic', 'reference-static'],
)
def test_compiled_without_graph_break(backend, dynamic):
    query, key, value, bias = make_inputs(CASE)

    def function(query, key, value, bias):
        output = neighborhood_attention_2d(
            query, key, value, bias=bias, kernel_size=3, dilation=2, backend=backend
        )
        return 2 * output

    compiled = torch.compile(function, fullgraph=True, backend='aot_eager', dynamic=dynamic)
    bias.requires_grad_()
    expected, actual = function(query, key, value, bias), compiled(query, key, value, bias)
    torch.testing.assert_close(actual, expected)
    (wanted,) = torch.autograd.grad(expected.square().sum(), bias)
    (found,) = torch.autograd.grad(actual.square().sum(), bias)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('backend', ['portable', 'reference'])
def test_autocast_casts_query_key_and_value_but_not_the_bias(backend, dtype):
    query, key, value, bias = make_inputs(CASE, dtype=torch.float32)
    bias.requires_grad_()
    options = dict(kernel_size=3, dilation=2, backend=backend)
    with torch.autocast('cpu', dtype):
        output = neighborhood_attention_2d(query, key, value, bias=bias, **options)
    expected = neighborhood_attention_2d(
        query.to(dtype), key.to(dtype), value.to(dtype), bias=bias, **options
    )
    assert output.dtype == dtype
    assert torch.equal(output, expected)
    output.sum().backward()
    assert bias.grad.dtype == torch.float32


def test_autocast_of_float64_changes_nothing():
    query, key, value, _ = make_inputs(CASE)
    with torch.autocast('cpu', torch.bfloat16):
        assert neighborhood_attention_2d(query, key, value, kernel_size=3).dtype == torch.float64


def test_inference_mode():
    query, key, value, _ = make_inputs(CASE)
    with torch.inference_mode():
        assert neighborhood_attention_2d(query, key, value, kernel_size=3).is_inference()


def test_training_after_inference_mode_on_a_map_of_the_same_size():
    case = Case(11, 17, 3)
    query, key, value, bias = make_inputs(case)
    with torch.inference_mode():
        neighborhood_attention_2d(query, key, value, bias=bias, kernel_size=3)
    grads = []
    for backend in ('portable', 'reference'):
        bias = bias.detach().requires_grad_()
        output = neighborhood_attention_2d(
            query, key, value, bias=bias, kernel_size=3, backend=backend
        )
        grads.append(torch.autograd.grad(output.square().sum(), bias)[0])
    torch.testing.assert_close(*grads)


def test_a_second_derivative_is_refused():
    query, key, value, _ = make_inputs(CASE)
    query.requires_grad_()
    output = neighborhood_attention_2d(query, key, value, kernel_size=3)
    (grad,) = torch.autograd.grad(output.sum(), query, create_graph=True)
    with pytest.raises(NotImplementedError, match='no second derivative'):
        grad.sum().backward()


def test_flops_of_a_module():
    module = NeighborhoodAttention2D(16, 2, kernel_size=5).eval()
    height, width, channels = 9, 12, 16
    analyzer = FlopAnalyzer(module, (torch.zeros(2, height, width, channels),))
    analyzer.set_op_handle(**flop_handles())
    tokens = 2 * height * width
    projections = tokens * channels * 4 * channels
    assert analyzer.total() == projections + 2 * 5 * 5 * tokens * channels
    assert not analyzer.unsupported_ops()
