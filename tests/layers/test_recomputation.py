"""Tests what the layers keep for backward, alone and with other ways to keep less."""

import functools

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from nat_mm.layers import Mlp, NATLayer, PatchMerging, recomputation

TOKENS, CHANNELS, HIDDEN = 2 * 6 * 7, 16, 48
MAP_BYTES = TOKENS * CHANNELS * 4


@pytest.fixture(params=['whole', 'in pieces'])
def division(request, monkeypatch):
    if request.param == 'in pieces':
        monkeypatch.setattr(recomputation, 'LARGEST_BYTES', 1000)
        monkeypatch.setattr(recomputation, 'PIECE_BYTES', 4000)
    return request.param


def make_layer(**options):
    torch.manual_seed(0)
    options = dict(kernel_size=3, layer_scale=0.5, drop_path_rate=0.4, **options)
    return NATLayer(CHANNELS, 2, **options)


def make_map():
    torch.manual_seed(1)
    return torch.randn(2, 6, 7, CHANNELS, requires_grad=True)


def run(layer, x, call=None):
    """Returns the output of a layer and its gradients."""
    torch.manual_seed(2)
    y = call(layer, x) if call else layer(x)
    return y, *torch.autograd.grad(y.float().square().sum(), [x, *layer.parameters()])


def run_without(monkeypatch, *arguments):
    with monkeypatch.context() as patch:
        patch.setattr(recomputation, '_setting', lambda: False)
        return run(*arguments)


def kept_bytes(module, x):
    """Returns the bytes that forward keeps for backward, without the parameters."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        y = module(x)
    for parameter in module.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    del y
    return sum(kept.values())


@pytest.mark.parametrize('autocast', [False, True], ids=['float32', 'autocast'])
def test_same_values_and_gradients(division, autocast, monkeypatch):
    layer, x = make_layer(), make_map()

    def call(layer, x):
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            return layer(x)

    expected = run_without(monkeypatch, layer, x, call)
    found = run(layer, x, call)
    if not autocast:
        torch.testing.assert_close(found, expected)
    for each, wanted in zip(found, expected, strict=True):  # pieces are summed in bfloat16
        assert (each - wanted).norm() <= 0.01 * wanted.norm()


@pytest.mark.parametrize('autocast', [False, True], ids=['float32', 'autocast'])
def test_mlp_keeps_its_input_and_in_one_piece_the_hidden_map(division, autocast):
    """The outputs of the norm and of the activation are not kept."""
    norm, mlp = recomputation.LayerNorm(CHANNELS), Mlp(CHANNELS, HIDDEN)
    hidden = TOKENS * HIDDEN * (2 if autocast else 4) if division == 'whole' else 0
    weights = (2 * CHANNELS * HIDDEN + CHANNELS + HIDDEN) * 2 if autocast else 0  # cast copies
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        kept = kept_bytes(lambda_module(lambda x: mlp(norm(x)), norm, mlp), make_map())
    statistics = 2 * TOKENS * 4
    assert kept <= MAP_BYTES + hidden + weights + statistics


def lambda_module(function, *parts):
    module = torch.nn.ModuleList(parts)
    module.forward = function
    return module


def test_patch_merging_keeps_the_merged_tokens_only():
    kept = kept_bytes(PatchMerging(CHANNELS), make_map())
    merged = 2 * 3 * 4  # the map's width is odd
    assert kept == merged * (4 * CHANNELS + 2) * 4


def test_within_activation_checkpointing(division, monkeypatch):
    layer, x = make_layer(), make_map()

    def call(layer, x):
        return checkpoint(layer, x, use_reentrant=False)

    torch.testing.assert_close(run(layer, x, call), run_without(monkeypatch, layer, x))


def double(module, inputs, output):
    output.mul_(2)


def double_input(module, inputs):
    inputs[0].mul_(2)


@pytest.mark.parametrize('name', ['norm1', 'norm2', 'mlp.act'])
def test_results_that_hooks_modify_in_place(name, division, monkeypatch):
    layer, x = make_layer(), make_map()
    layer.get_submodule(name).register_forward_hook(double)
    torch.testing.assert_close(run(layer, x), run_without(monkeypatch, layer, x))


@pytest.mark.parametrize('name', ['attn', 'attn.qkv', 'mlp', 'mlp.fc2'])
def test_inputs_that_hooks_modify_in_place(name, division, monkeypatch):
    layer, x = make_layer(dilation=3), make_map()  # the attention pads
    layer.get_submodule(name).register_forward_pre_hook(double_input)
    torch.testing.assert_close(run(layer, x), run_without(monkeypatch, layer, x))


def test_dropout_in_place(division, monkeypatch):
    layer, x = make_layer(drop_rate=0.5), make_map()
    layer.mlp.drop.inplace = True
    torch.testing.assert_close(run(layer, x), run_without(monkeypatch, layer, x))


@pytest.mark.parametrize('name', ['attn.qkv.weight', 'attn.rpb', 'mlp.fc2.weight'])
def test_modifying_a_kept_tensor_before_the_backward_pass_is_an_error(name, division):
    layer, x = make_layer(), make_map()
    y = layer(x)
    with torch.no_grad():
        layer.get_parameter(name).mul_(2)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        y.sum().backward()


def test_modifying_the_source_of_a_recipe_before_the_backward_pass_is_an_error():
    layer = make_layer(dilation=3)
    x = make_map().clone()
    y = layer.attn(x)  # keeps the map instead of the padded map
    x.mul_(2)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        y.sum().backward()


class Adapted(torch.nn.Module):
    """A linear layer with a trainable adapter, both of which keep the input."""

    def __init__(self, linear, dropout):
        super().__init__()
        self.linear, self.dropout = linear, torch.nn.Dropout(dropout)
        self.adapter = torch.nn.Linear(linear.in_features, linear.out_features)
        self.out_features = linear.out_features

    def forward(self, x):
        return self.linear(x) + self.adapter(self.dropout(x))


@pytest.mark.parametrize('dropout', [0.0, 0.5])
@pytest.mark.parametrize('is_checkpointed', [False, True])
def test_linear_layers_with_adapters(dropout, is_checkpointed, division, monkeypatch):
    layer, x = make_layer(), make_map()
    layer.attn.qkv, layer.mlp.fc1 = (
        Adapted(layer.attn.qkv, dropout),
        Adapted(layer.mlp.fc1, dropout),
    )

    def call(layer, x):
        return checkpoint(layer, x, use_reentrant=False) if is_checkpointed else layer(x)

    torch.testing.assert_close(run(layer, x, call), run_without(monkeypatch, layer, x))


def test_norm_with_weights_that_only_its_hooks_provide(division, monkeypatch):
    """FSDP2 shards the weights of a module that it wraps alone after the forward pass."""
    layer, x = make_layer(), make_map()

    def gather(module, inputs):
        module.weight.data = torch.full((CHANNELS,), 2.0)

    def shard(module, inputs, output):
        module.weight.data = torch.zeros(0)

    layer.norm2.register_forward_pre_hook(gather)
    layer.norm2.register_forward_hook(shard)
    layer.norm2.weight.requires_grad_(False)
    fc1 = layer.mlp.fc1.weight

    def find_gradient():
        torch.manual_seed(2)
        return torch.autograd.grad(layer(x).square().sum(), fc1)

    with monkeypatch.context() as patch:
        patch.setattr(recomputation, '_setting', lambda: False)
        expected = find_gradient()
    torch.testing.assert_close(find_gradient(), expected)


def test_hooks_run_in_the_forward_pass_only(division):
    layer, x = make_layer(), make_map()
    calls = []
    layer.mlp.fc1.register_forward_hook(lambda *call: calls.append(None))
    y = layer(x)
    expected = len(calls)
    y.sum().backward()
    assert len(calls) == expected


def test_activation_checkpointing_of_parts(division, monkeypatch):
    """The inputs of the parts are recomputable results from outside."""
    layer, x = make_layer(dilation=3), make_map()
    expected = run_without(monkeypatch, layer, x)
    for part in (layer.attn, layer.mlp):
        part.forward = functools.partial(checkpoint, part.forward, use_reentrant=False)
    torch.testing.assert_close(run(layer, x), expected)


def test_kept_tensors_go_through_hooks_that_are_there(division, monkeypatch):
    """Examples of such hooks are those of ``save_on_cpu`` and activation checkpointing."""
    layer, x = make_layer(), make_map()
    packed, unpacked = [], []

    def pack(tensor):
        packed.append(tensor)
        return len(packed) - 1

    def unpack(number):
        unpacked.append(number)
        return packed[number]

    def call(layer, x):
        with saved_tensors_hooks(pack, unpack):
            return layer(x)

    torch.testing.assert_close(run(layer, x, call), run_without(monkeypatch, layer, x))
    assert sorted(unpacked) == list(range(len(packed)))


def test_backward_twice_and_second_derivative(division):
    norm, mlp = recomputation.LayerNorm(CHANNELS).double(), Mlp(CHANNELS, HIDDEN).double()
    x = torch.randn(1, 2, 3, CHANNELS, dtype=torch.float64, requires_grad=True)
    y = mlp(norm(x)).sin().sum()
    first, second = (torch.autograd.grad(y, x, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert torch.autograd.gradgradcheck(lambda x: mlp(norm(x)).sin().sum(), x, fast_mode=True)


def test_files_of_results_contain_only_their_values(tmp_path):
    """As of features that a forward hook collects in training."""
    norm = recomputation.LayerNorm(CHANNELS)
    result = norm(make_map())
    torch.save(result, tmp_path / 'result.pt')
    loaded = torch.load(tmp_path / 'result.pt', weights_only=True)
    assert torch.equal(loaded, result)
    Mlp(CHANNELS, HIDDEN)(loaded).sum().backward()
    assert loaded.grad is not None


def test_function_transforms():
    layer, x = make_layer(attention_backend='reference').eval(), make_map()
    (expected,) = torch.autograd.grad(layer(x).square().sum(), x)
    found = torch.func.grad(lambda x: layer(x).square().sum())(x.detach())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('training', [True, False], ids=['training', 'inference'])
def test_hooks_may_keep_what_modules_return(training):
    """No module overwrites another one's output."""
    layer, x = make_layer().train(training), make_map()
    seen = []
    for module in layer.modules():
        module.register_forward_hook(lambda *call: seen.append((call[2], call[2].clone())))
    with torch.set_grad_enabled(training):
        layer(x)
    assert len(seen) > 10
    for output, when_returned in seen:
        assert torch.equal(output, when_returned)
