"""Tests the operator inside PyTorch: registration, compilation, autocast, FLOPs."""

import itertools

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from nat_mm.layers import NeighborhoodAttention2D
from nat_mm.ops import flop_formulas, flop_handles, neighborhood_attention_2d
from tests.ops.cases import Case, make_inputs, run
from tests.ops.kernel import CPU, needs_kernel

CASE = Case(9, 14, 3, (2, 3))
OPERATORS = {
    'cpu': torch.ops.nat_mm.na2d_cpu.default,
    'portable': torch.ops.nat_mm.na2d_portable.default,
}
BACKENDS = pytest.mark.parametrize('backend', [CPU, 'portable'])


def make_float32(**options):
    """Makes inputs that every backend supports."""
    return make_inputs(CASE, dtype=torch.float32, head_dim=8, **options)


@BACKENDS
@pytest.mark.parametrize('grad', [True, False], ids=['grad', 'nograd'])
@pytest.mark.parametrize('bias', [True, False], ids=['bias', 'nobias'])
def test_opcheck(bias, grad, backend):
    inputs = [
        None if t is None else t.detach().requires_grad_(grad) for t in make_float32(bias=bias)
    ]
    arguments = (*inputs, list(CASE.kernel_pair), list(CASE.dilation_pair), 0.5)
    torch.library.opcheck(OPERATORS[backend], arguments)


@pytest.mark.parametrize(
    ('backend', 'dynamic'),
    [
        pytest.param('cpu', False, marks=needs_kernel),
        pytest.param('cpu', True, marks=needs_kernel),
        *itertools.product(['auto', 'portable'], [False, True]),
        ('reference', False),
    ],
)
def test_compiled_without_graph_break(backend, dynamic):
    query, key, value, bias = make_float32()

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


@pytest.mark.parametrize(
    ('backend', 'dtype'),
    [
        pytest.param('cpu', torch.bfloat16, marks=needs_kernel),
        *itertools.product(['auto', 'portable', 'reference'], [torch.bfloat16, torch.float16]),
    ],
    ids=str,
)
def test_autocast_casts_query_key_and_value_but_not_the_bias(backend, dtype):
    query, key, value, bias = make_float32()
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


@BACKENDS
def test_backward_pass_under_autocast_computes_in_full_precision(backend):
    grads = []
    for enabled in (True, False):
        query, key, value, bias = (tensor.requires_grad_() for tensor in make_float32())
        output = neighborhood_attention_2d(
            query, key, value, kernel_size=3, bias=bias, backend=backend
        )
        with torch.autocast('cpu', enabled=enabled):
            grads.append(torch.autograd.grad(output.square().sum(), bias)[0])
    assert torch.equal(*grads)


@BACKENDS
def test_inference_mode(backend):
    query, key, value, _ = make_float32()
    with torch.inference_mode():
        output = neighborhood_attention_2d(query, key, value, kernel_size=3, backend=backend)
    assert output.is_inference()


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


@BACKENDS
@pytest.mark.parametrize('use_reentrant', [False, True], ids=['new', 'reentrant'])
def test_activation_checkpointing(backend, use_reentrant):
    def function(query, key, value, bias):
        return 2 * neighborhood_attention_2d(
            query, key, value, kernel_size=3, bias=bias, backend=backend
        )

    inputs = make_float32()
    grads = []
    for checkpointed in (True, False):
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        if checkpointed:
            output = checkpoint(function, *leaves, use_reentrant=use_reentrant)
        else:
            output = function(*leaves)
        output.square().sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    for found, wanted in zip(*grads, strict=True):
        assert torch.equal(found, wanted)


@BACKENDS
def test_a_second_derivative_is_refused(backend):
    query, key, value, _ = make_float32()
    query.requires_grad_()
    output = neighborhood_attention_2d(query, key, value, kernel_size=3, backend=backend)
    (grad,) = torch.autograd.grad(output.sum(), query, create_graph=True)
    with pytest.raises(NotImplementedError, match='no second derivative'):
        grad.sum().backward()


def jacobian_vector_product(function, inputs, tangents):
    """Does what ``torch.func.jvp`` does, with dual tensors."""
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip(inputs, tangents, strict=True)]
        return forward_ad.unpack_dual(function(*duals))


def per_sample_gradients(function, inputs, tangents):
    queries = torch.stack((inputs[0], tangents[0]))
    gradient = torch.func.grad(lambda query: function(query, *inputs[1:]).square().sum())
    return torch.func.vmap(gradient)(queries)


DERIVATIVES = pytest.mark.parametrize(
    'derivative',
    [
        jacobian_vector_product,
        torch.func.jvp,
        per_sample_gradients,
        lambda function, inputs, tangents: torch.func.vjp(function, *inputs)[1](tangents[0]),
        lambda function, inputs, _: torch.func.jacrev(lambda *t: function(*t).sum((1, 2, 3)))(
            *inputs
        ),
    ],
    ids=['dual', 'jvp', 'per sample', 'vjp', 'jacrev'],
)


def derive(derivative, backend, requires_grad=False):
    inputs = [tensor.clone().requires_grad_(requires_grad) for tensor in make_float32()]

    def function(query, key, value, bias):
        return neighborhood_attention_2d(
            query, key, value, bias=bias, kernel_size=3, backend=backend
        )

    return derivative(function, tuple(inputs), tuple(make_float32(seed=1)))


@DERIVATIVES
@pytest.mark.parametrize('requires_grad', [False, True], ids=['constants', 'parameters'])
def test_forward_mode_and_function_transforms(derivative, requires_grad):
    found = derive(derivative, 'auto', requires_grad)
    torch.testing.assert_close(found, derive(derivative, 'reference', requires_grad))


@BACKENDS
@DERIVATIVES
def test_forward_mode_and_function_transforms_are_refused(derivative, backend):
    with pytest.raises(ValueError, match=f'{backend}: has no .*; use backend="reference"'):
        derive(derivative, backend)


@BACKENDS
@pytest.mark.parametrize('derivative', [jacobian_vector_product, torch.func.jvp])
def test_forward_mode_of_a_bare_operator_is_refused(derivative, backend):
    """PyTorch would silently drop the tangents."""
    query, key, value, bias = make_float32()

    def function(query):
        return OPERATORS[backend](query, key, value, bias, (3, 3), (1, 1), 0.5)[0]

    function(query)
    with pytest.raises(NotImplementedError, match=r'call nat_mm\.ops\.neighborhood_attention_2d'):
        derivative(function, (query,), (key,))


@BACKENDS
def test_forward_mode_of_the_backward_pass_is_refused(backend):
    query, key, value, _ = make_float32()
    query.requires_grad_()
    output = neighborhood_attention_2d(query, key, value, kernel_size=3, backend=backend)
    with forward_ad.dual_level():
        grad = forward_ad.make_dual(key, value)
        with pytest.raises(NotImplementedError, match='no forward-mode derivative'):
            torch.autograd.grad(output, query, grad)


def test_forward_mode_in_a_compiled_function():
    query, key, value, _ = make_float32()

    def function(query):
        return torch.func.jvp(
            lambda query: neighborhood_attention_2d(query, key, value, kernel_size=3),
            (query,),
            (key,),
        )

    compiled = torch.compile(function, backend='eager')
    torch.testing.assert_close(compiled(query), function(query))


@pytest.mark.parametrize('backend', [CPU, 'portable', 'reference'])
def test_batched_gradients(backend):
    inputs = [tensor.requires_grad_() for tensor in make_float32()]
    output = run(CASE, backend, *inputs)
    grads = torch.stack([make_float32(seed=seed)[0] for seed in (1, 2)])
    found = torch.autograd.grad(output, inputs, grads, is_grads_batched=True, retain_graph=True)
    for index, grad in enumerate(grads):
        expected = torch.autograd.grad(output, inputs, grad, retain_graph=True)
        torch.testing.assert_close(tuple(batch[index] for batch in found), expected)


@BACKENDS
def test_flops_of_a_module(backend):
    module = NeighborhoodAttention2D(16, 2, kernel_size=5, backend=backend).eval()
    height, width, channels = 9, 12, 16
    analyzer = FlopAnalyzer(module, (torch.zeros(2, height, width, channels),))
    analyzer.set_op_handle(**flop_handles())
    tokens = 2 * height * width
    projections = tokens * channels * 4 * channels
    assert analyzer.total() == projections + 2 * 5 * 5 * tokens * channels
    assert not analyzer.unsupported_ops()


@pytest.mark.parametrize('backend', [CPU, 'portable', 'reference'])
@pytest.mark.parametrize('dilation', [1, (2, 3)], ids=str)
def test_flops_of_a_kernel_of_two_sizes(backend, dilation):
    query, key, value, _ = make_inputs(Case(14, 21, 3), dtype=torch.float32, head_dim=8)
    with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
        neighborhood_attention_2d(
            query, key, value, kernel_size=(3, 7), dilation=dilation, backend=backend
        )
    batch, height, width, heads, head_dim = query.shape
    scores = batch * height * width * heads * 3 * 7
    # scores and weighted values; PyTorch's counter counts a multiply-add as two
    assert counter.get_total_flops() == 2 * 2 * scores * head_dim


@BACKENDS
def test_flops_of_backward_include_the_recomputed_scores(backend):
    query, key, value, bias = (tensor.requires_grad_() for tensor in make_float32())
    output = neighborhood_attention_2d(query, key, value, bias=bias, kernel_size=3, backend=backend)
    with FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
        output.sum().backward()
    # scores, and gradients of weights, query, key and value
    assert counter.get_total_flops() == 5 * 2 * 3 * 3 * query.numel()
