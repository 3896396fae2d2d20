"""Tests NATLayer, tokenizer and downsampler."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn.functional import dropout, gelu, layer_norm
from torch.utils._python_dispatch import TorchDispatchMode

from nat_mm.layers import (
    ConvDownsampler,
    ConvTokenizer,
    Mlp,
    NATLayer,
    NeighborhoodAttention2D,
    SelfAttention2D,
    ShiftedWindowAttention2D,
    recomputation,
)


@pytest.mark.parametrize('layer_scale', [None, 0.5])
def test_layer_is_prenorm_attention_and_mlp(layer_scale):
    torch.manual_seed(0)
    layer = NATLayer(8, 2, kernel_size=3, mlp_ratio=2.5, layer_scale=layer_scale).double()
    x = torch.randn(2, 5, 6, 8, dtype=torch.float64)
    factor = layer_scale or 1
    with torch.no_grad():
        expected = x + factor * layer.attn(layer_norm(x, (8,)))
        mlp = layer.mlp
        hidden = gelu(layer_norm(expected, (8,)) @ mlp.fc1.weight.T + mlp.fc1.bias)
        assert hidden.shape[-1] == 20
        expected = expected + factor * (hidden @ mlp.fc2.weight.T + mlp.fc2.bias)
        torch.testing.assert_close(layer(x), expected)


class OperatorCounter(TorchDispatchMode):
    """Counts the calls of PyTorch's operators by name."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls[function.__name__.split('.')[0]] += 1
        return function(*args, **(kwargs or {}))


def test_norms_and_activation_are_recomputed_in_backward_and_linear_layers_are_not():
    layer = NATLayer(8, 2, kernel_size=3)
    x = torch.randn(1, 5, 6, 8, requires_grad=True)
    with OperatorCounter() as forward:
        y = layer(x)
    with OperatorCounter() as backward:
        y.sum().backward()
    assert forward.calls['addmm'] == 4
    assert backward.calls['addmm'] == 0
    for name, calls in (('native_layer_norm', 2), ('gelu', 1)):
        assert forward.calls[name] == backward.calls[name] == calls


@pytest.mark.parametrize(
    ('setting', 'again'), [(None, 0), (False, 0), (True, 1)], ids=['default', 'off', 'on']
)
def test_on_other_devices_nothing_is_recomputed_unless_asked_for(monkeypatch, setting, again):
    """Recomputing takes the host longer than the layer takes a GPU. The device here is meta."""
    monkeypatch.setattr(recomputation, '_setting', lambda: setting)
    layer = NATLayer(8, 2, kernel_size=3).to('meta')
    x = torch.empty(1, 5, 6, 8, requires_grad=True, device='meta')
    y = layer(x)
    with OperatorCounter() as backward:
        y.sum().backward()
    assert backward.calls['native_layer_norm'] == 2 * again
    assert backward.calls['gelu'] == again


def test_recomputation_can_be_turned_off_on_the_cpu(monkeypatch):
    monkeypatch.setattr(recomputation, '_setting', lambda: False)
    y = NATLayer(8, 2, kernel_size=3)(torch.randn(1, 5, 6, 8, requires_grad=True))
    with OperatorCounter() as backward:
        y.sum().backward()
    assert backward.calls['native_layer_norm'] == backward.calls['gelu'] == 0


def test_gradients_are_those_without_recomputation():
    torch.manual_seed(0)
    layer = NATLayer(8, 2, kernel_size=3, drop_rate=0.5).double()
    x = torch.randn(2, 5, 6, 8, dtype=torch.float64, requires_grad=True)

    def plain(x):
        x = x + layer.attn(layer.norm1(x))
        mlp = layer.mlp
        hidden = dropout(gelu(mlp.fc1(layer.norm2(x))), 0.5)
        return x + dropout(mlp.fc2(hidden), 0.5)

    grads = []
    for forward in (plain, layer):
        torch.manual_seed(1)
        grads.append(torch.autograd.grad(forward(x).square().sum(), [x, *layer.parameters()]))
    torch.testing.assert_close(grads[1], grads[0])


def test_layer_scale_adds_only_gamma1_and_gamma2():
    plain = set(NATLayer(8, 2).state_dict())
    scaled = NATLayer(8, 2, layer_scale=1e-5)
    assert set(scaled.state_dict()) - plain == {'gamma1', 'gamma2'}
    assert torch.equal(scaled.gamma1, torch.full((8,), 1e-5))


def test_drop_path_drops_whole_samples_and_scales_up_the_others():
    torch.manual_seed(0)
    layer = NATLayer(8, 2, kernel_size=3, drop_path_rate=0.75)
    layer.attn = nn.Identity()
    nn.init.zeros_(layer.mlp.fc2.weight)
    nn.init.zeros_(layer.mlp.fc2.bias)
    x = torch.randn(1, 3, 4, 8).expand(400, 3, 4, 8)
    steps = (layer.train()(x) - x).detach()
    kept = steps.flatten(1).any(1)
    assert 0.18 < kept.float().mean() < 0.32
    full_step = layer_norm(x[0], (8,))
    torch.testing.assert_close(steps[kept], (full_step / 0.25).expand(int(kept.sum()), 3, 4, 8))
    torch.testing.assert_close(layer.eval()(x)[0], x[0] + full_step)


@pytest.mark.parametrize('layer_scale', [None, 0.5])
def test_branches_of_16_bits_are_added_in_those_of_the_map(layer_scale):
    """As under autocast, branches have 16 bits; the same samples are dropped as in float32."""
    layer = NATLayer(8, 2, drop_path_rate=0.5, layer_scale=layer_scale).train()
    x, branch = torch.randn(2, 64, 2, 2, 8).unbind()
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        part = branch.to(dtype).requires_grad_()
        added = layer._add(x, part, layer.gamma1)
        (grad,) = torch.autograd.grad(added.sum(), part)
        assert (added.dtype, grad.dtype) == (torch.float32, dtype)
        found.append((added, grad.float()))
    torch.testing.assert_close(*found, rtol=2e-2, atol=2e-2)


def test_mlp_drops_in_training_only():
    mlp = Mlp(8, 16, drop_rate=0.5)
    x = torch.randn(2, 3, 8)
    assert (mlp(x) == 0).any()
    assert not (mlp.eval()(x) == 0).any()


@pytest.mark.parametrize(
    ('size', 'tokens'),
    [((32, 32), (8, 8)), ((33, 47), (9, 12)), ((35, 61), (9, 16))],
    ids=lambda size: 'x'.join(map(str, size)),
)
def test_tokenizer(size, tokens):
    tokenizer = ConvTokenizer(3, 16)
    image = torch.randn(2, 3, *size)
    result = tokenizer(image)
    assert result.shape == (2, *tokens, 16)
    assert result.is_contiguous()
    expected = tokenizer.proj[1](tokenizer.proj[0](image)).movedim(1, -1)
    torch.testing.assert_close(result, layer_norm(expected, (16,)))


@pytest.mark.parametrize(
    ('size', 'half'),
    [((8, 6), (4, 3)), ((7, 5), (4, 3)), ((1, 1), (1, 1))],
    ids=lambda size: 'x'.join(map(str, size)),
)
def test_downsampler(size, half):
    downsampler = ConvDownsampler(16)
    x = torch.randn(2, *size, 16)
    result = downsampler(x)
    assert result.shape == (2, *half, 32)
    assert result.is_contiguous()
    expected = downsampler.reduction(x.movedim(-1, 1)).movedim(1, -1)
    torch.testing.assert_close(result, layer_norm(expected, (32,)))


def test_compiles_without_graph_break():
    torch.manual_seed(0)
    layer = NATLayer(8, 2, drop_path_rate=0.5, layer_scale=0.1)
    compiled = torch.compile(layer, fullgraph=True, backend='aot_eager')
    x = torch.randn(4, 4, 9, 8)  # padded to 7 x 9
    results = []
    for module in (layer, compiled):
        torch.manual_seed(1)
        output = module(x)
        output.square().sum().backward()
        results.append((output, [parameter.grad for parameter in layer.parameters()]))
        layer.zero_grad()
    torch.testing.assert_close(*results)


@pytest.mark.parametrize(
    'make', [NATLayer, NeighborhoodAttention2D, SelfAttention2D, ShiftedWindowAttention2D]
)
@pytest.mark.parametrize(
    ('rate', 'error'), [(1.0, ValueError), (-0.1, ValueError), ('a', TypeError)]
)
def test_rates_are_probabilities_below_one(make, rate, error):
    names = ['drop_rate', 'drop_path_rate'] if make is NATLayer else ['drop_rate']
    for name in names:
        with pytest.raises(error, match=rf'{name} must be .*in \[0, 1\), got '):
            make(8, 2, **{name: rate})
