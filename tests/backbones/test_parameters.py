"""Tests the names and numbers of parameters, a contract with the released checkpoints."""

import pytest
import torch

from nat_mm.backbones import NAT, DiNAT, DiNAT_s

LAYER = [
    'norm1.weight',
    'norm1.bias',
    'attn.rpb',
    'attn.qkv.weight',
    'attn.qkv.bias',
    'attn.proj.weight',
    'attn.proj.bias',
    'norm2.weight',
    'norm2.bias',
    'mlp.fc1.weight',
    'mlp.fc1.bias',
    'mlp.fc2.weight',
    'mlp.fc2.bias',
]
TOKENIZER = [
    f'patch_embed.{name}.{kind}'
    for name in ('proj.0', 'proj.1', 'norm')
    for kind in ('weight', 'bias')
]
DOWNSAMPLER = ['reduction.weight', 'norm.weight', 'norm.bias']


def contract(depths, out_indices, layer_scale):
    layer = LAYER + (['gamma1', 'gamma2'] if layer_scale else [])
    names = set(TOKENIZER)
    for stage, depth in enumerate(depths):
        names |= {f'levels.{stage}.blocks.{i}.{name}' for i in range(depth) for name in layer}
        if stage < 3:
            names |= {f'levels.{stage}.downsample.{name}' for name in DOWNSAMPLER}
    return names | {f'norm{i}.{kind}' for i in out_indices for kind in ('weight', 'bias')}


@pytest.mark.parametrize('layer_scale', [None, 1e-5], ids=['plain', 'layer scale'])
@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (1, 3)], ids=str)
def test_names(make_nat, out_indices, layer_scale):
    model = make_nat(depths=(2, 1, 3, 1), out_indices=out_indices, layer_scale=layer_scale)
    names = contract((2, 1, 3, 1), out_indices, layer_scale)
    assert set(model.state_dict()) == names
    assert {name for name, _ in model.named_parameters()} == names


def test_shapes(make_nat):
    shapes = {name: tuple(each.shape) for name, each in make_nat().state_dict().items()}
    assert shapes['patch_embed.proj.0.weight'] == (16, 3, 3, 3)
    assert shapes['patch_embed.proj.1.weight'] == (32, 16, 3, 3)
    assert shapes['levels.0.blocks.0.attn.rpb'] == (1, 5, 5)
    assert shapes['levels.2.blocks.0.attn.rpb'] == (4, 5, 5)
    assert shapes['levels.1.blocks.0.attn.qkv.weight'] == (192, 64)
    assert shapes['levels.1.blocks.0.mlp.fc1.weight'] == (128, 64)
    assert shapes['levels.1.downsample.reduction.weight'] == (128, 64, 3, 3)
    assert shapes['norm3.weight'] == (256,)


@pytest.mark.parametrize(
    ('family', 'arch', 'published_millions'),
    [
        (NAT, 'mini', 20),
        (NAT, 'tiny', 28),
        (NAT, 'small', 51),
        (NAT, 'base', 90),
        (DiNAT, 'mini', 20),
        (DiNAT, 'tiny', 28),
        (DiNAT, 'small', 51),
        (DiNAT, 'base', 90),
        (DiNAT, 'large', 200),
        (DiNAT_s, 'tiny', 28),
        (DiNAT_s, 'small', 50),
        (DiNAT_s, 'base', 88),
        (DiNAT_s, 'large', 197),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value),
)
def test_published_number_of_parameters_of_the_classifier(family, arch, published_millions):
    with torch.device('meta'):
        model = family(arch=arch, out_indices=(3,))
    # The classifier has one norm, like ours with one output, and a head for 1000 classes.
    head = model.norm3.weight.numel() * 1000 + 1000
    millions = (sum(each.numel() for each in model.parameters()) + head) / 1e6
    assert millions == pytest.approx(published_millions, abs=1.0)  # 200.94 is published as 200


@pytest.mark.parametrize('family', [NAT, DiNAT, DiNAT_s], ids=lambda family: family.__name__)
def test_layer_scale_of_published_architectures(family):
    with torch.device('meta'):
        scaled = {
            arch
            for arch in family.architectures
            if any('gamma' in name for name, _ in family(arch=arch).named_parameters())
        }
    assert scaled == {NAT: {'small', 'base'}, DiNAT: {'base'}, DiNAT_s: set()}[family]


def test_dilations_of_published_architectures():
    for arch, depth in (('mini', 6), ('tiny', 18), ('small', 18), ('base', 18), ('large', 18)):
        with torch.device('meta'):
            model = DiNAT(arch=arch)
        dilations = [[layer.attn.dilation for layer in stage.blocks] for stage in model.levels]
        assert dilations == [[1, 8, 1], [1, 4, 1, 4], [1, 2] * (depth // 2), [1] * 5]


def test_dilations_of_published_dinat_s():
    for arch, depth in (('tiny', 6), ('small', 18), ('base', 18), ('large', 18)):
        with torch.device('meta'):
            model = DiNAT_s(arch=arch)
        dilations = [[layer.attn.dilation for layer in stage.blocks] for stage in model.layers]
        assert dilations == [[1, 8], [1, 4], [1, 2] * (depth // 2), [1, 1]]


def test_nat_is_not_dilated(make_nat):
    assert {layer.attn.dilation for stage in make_nat().levels for layer in stage.blocks} == {1}


def test_initial_values(make_nat):
    state = make_nat(embed_dim=64, num_heads=(2, 4, 8, 16)).state_dict()
    for name, value in state.items():
        if 'norm' in name:
            assert torch.equal(value, torch.full_like(value, name.endswith('weight')))
        elif name.endswith(('qkv.weight', 'proj.weight', 'fc1.weight', 'fc2.weight', 'rpb')):
            assert value.std() == pytest.approx(0.02, rel=0.2), name
        elif name.startswith('levels') and name.endswith('bias'):
            assert not value.any(), name


def test_no_weight_decay_on_norms_and_rpb(make_nat):
    from mmengine.optim import build_optim_wrapper

    wrapper = build_optim_wrapper(
        torch.nn.ModuleDict({'backbone': make_nat(layer_scale=1e-5)}),
        {
            'optimizer': {'type': 'AdamW', 'lr': 1e-4, 'weight_decay': 0.05},
            'paramwise_cfg': {
                'custom_keys': {'norm': {'decay_mult': 0.0}, 'rpb': {'decay_mult': 0.0}}
            },
        },
    )
    model = make_nat(layer_scale=1e-5)
    names = [name for name, _ in model.named_parameters()]
    decays = [group['weight_decay'] for group in wrapper.optimizer.param_groups]
    undecayed = {name for name, decay in zip(names, decays, strict=True) if decay == 0}
    assert undecayed == {name for name in names if 'norm' in name or name.endswith('.rpb')}
