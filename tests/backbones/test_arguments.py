"""Tests the architecture table, explicit arguments, wrong arguments and registration."""

import importlib
import math

import pytest
import torch
from mmengine.registry import MODELS

from nat_mm.backbones import NAT, DiNAT


def on_meta(family, **options):
    with torch.device('meta'):
        return family(**options)


def test_explicit_arguments_override_the_table():
    model = on_meta(
        NAT,
        arch='base',
        embed_dim=48,
        depths=[1, 2, 1, 1],
        num_heads=[3, 3, 6, 6],
        kernel_size=5,
        mlp_ratio=4.0,
        qkv_bias=False,
        drop_path_rate=0.0,
        layer_scale=False,
        attention_backend='reference',
    )
    layer = model.levels[1].blocks[1]
    assert [len(stage.blocks) for stage in model.levels] == [1, 2, 1, 1]
    assert layer.attn.rpb.shape == (3, 9, 9)
    assert layer.mlp.fc1.weight.shape == (384, 96)
    assert layer.attn.qkv.bias is None
    assert layer.drop_path.p == 0
    assert layer.gamma1 is None
    assert layer.attn.backend == 'reference'


def test_detection_dilations_replace_those_of_the_table():
    dilations = [[1, 28, 1], [1, 7, 1, 14], [1, 3, 1, 5, 1, 7], [1, 3, 1, 3, 1]]
    model = on_meta(DiNAT, arch='mini', dilations=dilations)
    found = [[layer.attn.dilation for layer in stage.blocks] for stage in model.levels]
    assert found == dilations


def test_layer_scale_can_be_changed():
    assert on_meta(DiNAT, arch='small', layer_scale=1e-5).levels[0].blocks[0].gamma1 is not None


EXPLICIT = {'embed_dim': 32, 'depths': [1, 1, 1, 1], 'num_heads': [1, 2, 4, 8]}
WRONG = [
    (NAT, {'arch': 'large'}, "one of mini, tiny, small, base, got 'large'"),
    (DiNAT, {'arch': 'huge'}, 'arch must be one of mini, tiny, small, base, large'),
    (NAT, {}, 'without arch .*mini, tiny.*, embed_dim, depths, num_heads must be given'),
    (NAT, {'embed_dim': 32, 'depths': [1] * 4}, 'num_heads must be given'),
    (NAT, {'arch': 'mini', 'embed_dim': 33}, 'embed_dim must be even, got 33'),
    (NAT, {'arch': 'mini', 'depths': [3, 4, 0, 5]}, r'depths\[2\] must be at least 1, got 0'),
    (NAT, {'arch': 'mini', 'depths': 4}, 'depths must be a list of one int per stage, got 4'),
    (NAT, {'arch': 'mini', 'num_heads': [2, 4, 8]}, r'per stage like depths \(4\), got 3'),
    (
        NAT,
        {'arch': 'mini', 'num_heads': [2, 4, 7, 16]},
        r'num_heads\[2\]=7 does not divide 256 \(embed_dim \* 2\*\*2\)',
    ),
    (NAT, {'arch': 'mini', 'kernel_size': 8}, 'kernel_size must be odd.*got 8; use 7 or 9'),
    (NAT, {'arch': 'mini', 'kernel_size': 1}, 'kernel_size must be at least 3, got 1'),
    (NAT, {'arch': 'mini', 'kernel_size': [7, 7, 7, 7]}, 'kernel_size must be an int'),
    (NAT, {'arch': 'mini', 'dilations': [[1] * 3]}, 'NAT takes no dilations; DiNAT and DiNAT_s do'),
    (DiNAT, EXPLICIT, 'DiNAT without arch needs dilations'),
    (DiNAT, {**EXPLICIT, 'dilations': [[1]] * 3}, r'lengths \[1, 1, 1, 1\], got 3 lists'),
    (
        DiNAT,
        {'arch': 'mini', 'dilations': [[1, 8, 1], [1, 4, 1], [1, 2] * 3, [1] * 5]},
        r'lengths \[3, 4, 6, 5\], but dilations\[1\] has 3 entries: \[1, 4, 1\]',
    ),
    (DiNAT, {**EXPLICIT, 'dilations': [1, 2, 3, 4]}, 'dilations must be one list per stage'),
    (DiNAT, {**EXPLICIT, 'dilations': 2}, 'dilations must be one list per stage'),
    (DiNAT, {**EXPLICIT, 'dilations': [[1], [0], [1], [1]]}, r'\[1\]\[0\] must be at least 1'),
    (NAT, {'arch': 'mini', 'mlp_ratio': 0}, 'mlp_ratio must be above 0, got 0'),
    (NAT, {'arch': 'mini', 'mlp_ratio': math.nan}, 'mlp_ratio must be finite, got nan'),
    (NAT, {'arch': 'mini', 'mlp_ratio': math.inf}, 'mlp_ratio must be finite, got inf'),
    (NAT, {'arch': 'mini', 'mlp_ratio': 0.001}, r'1 hidden channel, but 0.001 \* 64 channels'),
    (NAT, {'arch': 'mini', 'layer_scale': math.nan}, 'layer_scale must be finite'),
    (NAT, {'arch': 'mini', 'layer_scale': math.inf}, 'layer_scale must be finite'),
    (NAT, {'arch': 'mini', 'qkv_bias': 'no'}, "qkv_bias must be True or False, got 'no'"),
    (NAT, {'arch': 'mini', 'with_cp': 'yes'}, "with_cp must be True or False, got 'yes'"),
    (NAT, {'arch': 'mini', 'drop_rate': 1.0}, r'drop_rate must be in \[0, 1\), got 1.0'),
    (NAT, {'arch': 'mini', 'drop_path_rate': -0.1}, r'drop_path_rate must be in \[0, 1\)'),
    (NAT, {'arch': 'mini', 'drop_path_rate': '0.1'}, 'drop_path_rate must be a number'),
    (NAT, {'arch': 'mini', 'layer_scale': -1e-5}, 'layer_scale must be above 0'),
    (NAT, {'arch': 'mini', 'layer_scale': True}, 'must be a number above 0, got True'),
    (NAT, {'arch': 'mini', 'in_channels': 0}, 'in_channels must be at least 1'),
    (NAT, {'arch': 'mini', 'out_indices': (0, 4)}, r'0 to 3 in increasing order, got \[0, 4\]'),
    (NAT, {'arch': 'mini', 'out_indices': (-1,)}, 'entry of out_indices must be at least 0'),
    (NAT, {'arch': 'mini', 'out_indices': (1, 1)}, r'different stages.*got \[1, 1\]'),
    (NAT, {'arch': 'mini', 'out_indices': (2, 1)}, r'increasing order, got \[2, 1\]'),
    (NAT, {'arch': 'mini', 'out_indices': ()}, r'out_indices must be a list.*got \[\]'),
    (NAT, {'arch': 'mini', 'out_indices': 3}, 'out_indices must be a list'),
    (NAT, {'arch': 'mini', 'frozen_stages': 5}, r'from -1 .* to 4 \(all stages\), got 5'),
    (NAT, {'arch': 'mini', 'frozen_stages': -2}, 'frozen_stages must be at least -1'),
    (
        NAT,
        {'arch': 'mini', 'attention_backend': 'cuda'},
        'backend must be one of auto, .*reference',
    ),
]


@pytest.mark.parametrize(
    ('family', 'options', 'message'), WRONG, ids=[f'{w[0].__name__} {w[1]}' for w in WRONG]
)
def test_wrong_argument(family, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        on_meta(family, **options)


@pytest.mark.parametrize(
    'misspelt', [{'archh': 'tiny'}, {'arch': 'tiny', 'drop_path': 0.1}], ids=str
)
def test_misspelt_argument_is_named_when_built_from_a_config(misspelt):
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{list(misspelt)[-1]}'"):
        MODELS.build({'type': 'NAT', **misspelt})


@pytest.mark.parametrize(
    'registry', ['mmengine.registry', 'mmdet.registry', 'mmseg.registry'], ids=str
)
def test_both_families_are_found_from_every_registry(registry):
    models = importlib.import_module(registry).MODELS
    assert models.get('NAT') is NAT
    assert models.get('DiNAT') is DiNAT
    config = {'type': 'NAT', **EXPLICIT, 'kernel_size': 3}
    assert isinstance(models.build(config), NAT)
