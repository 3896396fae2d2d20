"""Tests learning rates that decay with depth, by the toolboxes' own optimizer constructors."""

import importlib

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from nat_mm.backbones import NAT, DiNAT_s, NATIsotropic

SMALL = dict(embed_dim=8, kernel_size=3, mlp_ratio=1.0)
PYRAMID = dict(**SMALL, depths=(2, 1), num_heads=(1, 2), out_indices=(0, 1))
BACKBONES = {
    'NAT': lambda: NAT(**PYRAMID),
    'DiNAT_s': lambda: DiNAT_s(**PYRAMID, dilations=[[1, 1], [1]]),
    'NATIsotropic': lambda: NATIsotropic(**SMALL, depth=3, num_heads=1, out_indices=(1, 2)),
}
STAGES = {'NAT': 'levels', 'DiNAT_s': 'layers'}
PYRAMID_DEPTHS = {
    'patch_embed.norm.weight': (0, 0),
    'STAGES.0.blocks.0.attn.rpb': (1, 1),
    'STAGES.0.blocks.1.mlp.fc1.bias': (2, 1),
    'STAGES.0.downsample.norm.weight': (2, 1),
    'STAGES.1.blocks.0.norm1.weight': (3, 2),
    'norm0.weight': (4, 3),
}
ISOTROPIC_DEPTHS = {'patch_embed.proj.weight': 0, 'layers.0.attn.rpb': 1, 'layers.2.norm2.bias': 3}


class Model(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.layers = nn.Linear(8, 8)


def build(model, framework, paramwise, optimizer=()):
    """Builds the optimizer with a toolbox's constructor; returns the group of each parameter."""
    importlib.import_module(f'{framework}.engine')
    constructor = 'LearningRateDecayOptimizerConstructor'
    if framework == 'mmpretrain':
        constructor = 'LearningRateDecayOptimWrapperConstructor'
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            optimizer=dict(type='AdamW', lr=0.01, **dict(optimizer)),
            constructor=f'{framework}.{constructor}',
            paramwise_cfg=paramwise,
        ),
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: group
        for group in wrapper.optimizer.param_groups
        for parameter in group['params']
    }


@pytest.mark.parametrize('name', ['NAT', 'DiNAT_s'])
def test_depths(name):
    backbone = BACKBONES[name]()
    known = dict(backbone.named_parameters())
    for parameter, (layer, stage) in PYRAMID_DEPTHS.items():
        parameter = parameter.replace('STAGES', STAGES[name])
        assert parameter in known
        assert backbone.get_layer_depth(parameter) == (layer, 5)
        assert backbone.get_layer_depth(f'backbone.{parameter}', 'backbone.') == (layer, 5)
        assert backbone.get_stage_depth(f'backbone.{parameter}', 'backbone.') == (stage, 4)
    assert backbone.get_layer_depth('patch_embed.norm.weight', 'backbone.') == (4, 5)
    assert backbone.get_layer_depth(f'head.{STAGES[name]}.0.weight', 'backbone.') == (4, 5)


def test_depths_of_one_resolution():
    backbone = BACKBONES['NATIsotropic']()
    known = dict(backbone.named_parameters())
    for parameter, depth in ISOTROPIC_DEPTHS.items():
        assert parameter in known
        assert backbone.get_layer_depth(f'backbone.{parameter}', 'backbone.') == (depth, 5)
    for parameter in ('backbone.norm1.weight', 'layers.0.attn.rpb', 'head.fc.bias'):
        assert backbone.get_layer_depth(parameter, 'backbone.') == (4, 5)


@pytest.mark.parametrize('framework', ['mmdet', 'mmseg'])
@pytest.mark.parametrize('kind', ['layer_wise', 'stage_wise', None])
@pytest.mark.parametrize('name', BACKBONES)
def test_learning_rates(name, kind, framework):
    if name == 'NATIsotropic' and kind == 'stage_wise':
        pytest.skip('there are no stages')
    model = Model(BACKBONES[name]())
    model.backbone.patch_embed.requires_grad_(False)
    paramwise = dict(decay_rate=0.5, num_layers=2 if kind == 'stage_wise' else 3)
    if kind is None:
        del paramwise['num_layers']
    else:
        paramwise['decay_type'] = kind
    groups = build(model, framework, paramwise, dict(weight_decay=0.1))
    trained = {each for each, parameter in model.named_parameters() if parameter.requires_grad}
    assert groups.keys() == trained
    find_depth = getattr(
        model.backbone, 'get_stage_depth' if kind == 'stage_wise' else 'get_layer_depth'
    )
    for parameter, group in groups.items():
        depth, count = find_depth(parameter, 'backbone.')
        assert group['lr'] == 0.01 * 0.5 ** (count - 1 - depth)
        decays = model.get_parameter(parameter).ndim > 1 and not parameter.endswith('rpb')
        assert group['weight_decay'] == (0.1 if decays else 0)
    assert groups['layers.weight']['lr'] == 0.01
    assert len({group['lr'] for group in groups.values()}) == (3 if kind == 'stage_wise' else 4)


@pytest.mark.parametrize('name', BACKBONES)
def test_learning_rates_of_mmpretrain(name):
    from mmpretrain.models import ImageClassifier

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = ImageClassifier(backbone=BACKBONES[name]())
    groups = build(model, 'mmpretrain', dict(layer_decay_rate=0.5), dict(weight_decay=0.1))
    assert groups.keys() == {each for each, _ in model.named_parameters()}
    for parameter, group in groups.items():
        depth, _ = model.backbone.get_layer_depth(parameter, 'backbone.')
        assert group['lr'] == 0.01 * 0.5 ** (4 - depth)


def test_weight_decay_of_the_optimizer():
    """Without a value in the config, the optimizer's own default holds."""
    groups = build(Model(BACKBONES['NAT']()), 'mmdet', dict(decay_rate=0.5))
    default = torch.optim.AdamW([nn.Parameter(torch.zeros(1))]).defaults['weight_decay']
    assert groups['layers.weight']['weight_decay'] == default
    assert groups['layers.bias']['weight_decay'] == 0


@pytest.mark.parametrize(
    ('name', 'paramwise', 'message'),
    [
        ('NAT', dict(decay_rate=0.5, num_layers=12), 'num_layers must be 3, the number of layers'),
        (
            'NAT',
            dict(decay_rate=0.5, num_layers=12, decay_type='stage_wise'),
            'num_layers must be 2, the number of stages of NAT, or left out, got 12',
        ),
        ('NAT', dict(num_layers=3), 'paramwise_cfg.decay_rate must be a number above 0, got None'),
        ('NAT', dict(decay_rate=-1), 'paramwise_cfg.decay_rate must be above 0, got -1'),
        (
            'NAT',
            dict(decay_rate=0.5, decay_type='layer_wise_vit'),
            "must be 'layer_wise' or 'stage_wise' for NAT, got 'layer_wise_vit'",
        ),
        (
            'NATIsotropic',
            dict(decay_rate=0.5, decay_type='stage_wise'),
            "must be 'layer_wise' for NATIsotropic, got 'stage_wise'",
        ),
    ],
    ids=str,
)
def test_wrong_settings(name, paramwise, message):
    with pytest.raises((TypeError, ValueError), match=message):
        build(Model(BACKBONES[name]()), 'mmseg', paramwise)


@pytest.mark.parametrize('framework', ['mmdet', 'mmseg'])
def test_other_backbones_are_left_to_upstream(framework):
    with pytest.raises(NotImplementedError):
        build(Model(nn.Linear(8, 8)), framework, dict(decay_rate=0.5, num_layers=3))
