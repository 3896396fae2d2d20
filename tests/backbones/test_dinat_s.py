"""Tests what only DiNAT_s has; test_features.py tests what all backbones share."""

import pytest
import torch
from mmdet.models import SwinTransformer
from mmengine.registry import MODELS
from torch.nn.functional import layer_norm

from nat_mm.backbones import DiNAT_s
from nat_mm.layers import PatchMerging, PatchTokenizer

LAYER = ['norm1', 'attn.qkv', 'attn.proj', 'norm2', 'mlp.fc1', 'mlp.fc2']


def contract(depths, out_indices):
    names = {f'patch_embed.{part}.{kind}' for part in ('proj', 'norm') for kind in KINDS}
    for stage, depth in enumerate(depths):
        for block in range(depth):
            start = f'layers.{stage}.blocks.{block}'
            names |= {f'{start}.{name}.{kind}' for name in LAYER for kind in KINDS}
            names.add(f'{start}.attn.rpb')
        if stage < 3:
            start = f'layers.{stage}.downsample'
            names |= {f'{start}.norm.weight', f'{start}.norm.bias', f'{start}.reduction.weight'}
    return names | {f'norm{i}.{kind}' for i in out_indices for kind in KINDS}


KINDS = ('weight', 'bias')


@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (1, 3)], ids=str)
def test_names(make_dinat_s, out_indices):
    depths = (2, 1, 3, 1)
    dilations = [[1] * depth for depth in depths]
    model = make_dinat_s(depths=depths, dilations=dilations, out_indices=out_indices)
    assert set(model.state_dict()) == contract(depths, out_indices)


def test_shapes(make_dinat_s):
    shapes = {name: tuple(each.shape) for name, each in make_dinat_s().state_dict().items()}
    assert shapes['patch_embed.proj.weight'] == (32, 3, 4, 4)
    assert shapes['layers.1.downsample.norm.weight'] == (256,)
    assert shapes['layers.1.downsample.reduction.weight'] == (128, 256)


def test_without_patch_norm(make_dinat_s):
    model = make_dinat_s(patch_norm=False)
    assert not any(name.startswith('patch_embed.norm') for name in model.state_dict())
    assert model(torch.randn(1, 3, 32, 32))[0].shape == (1, 32, 8, 8)


def test_mlp_ratio_without_arch():
    options = {'embed_dim': 32, 'depths': [1], 'num_heads': [1], 'dilations': [[1]]}
    model = DiNAT_s(**options, out_indices=[0])
    assert model.layers[0].blocks[0].mlp.fc1.out_features == 128
    model = DiNAT_s(**options, out_indices=[0], mlp_ratio=2.5)
    assert model.layers[0].blocks[0].mlp.fc1.out_features == 80


def test_registered():
    model = MODELS.build({'type': 'DiNAT_s', 'arch': 'tiny', 'out_indices': (0,)})
    assert isinstance(model, DiNAT_s)


@pytest.mark.parametrize('size', [(32, 40), (33, 47), (35, 62)], ids=str)
def test_tokenizer_and_downsampler_are_swins(size):
    """Both match mmdet's modules, but its merging orders channels as [C, 4], not [4, C]."""
    torch.manual_seed(0)
    swin = SwinTransformer(embed_dims=8, depths=(1, 1), num_heads=(1, 1), strides=(4, 2),
                           out_indices=(0, 1))  # fmt: skip
    swin_embed, swin_merging = swin.patch_embed, swin.stages[0].downsample
    tokenizer, merging = PatchTokenizer(3, 8), PatchMerging(8)
    tokenizer.proj.load_state_dict(swin_embed.projection.state_dict())
    tokenizer.norm.load_state_dict(swin_embed.norm.state_dict())
    weight = swin_merging.reduction.weight.view(16, 8, 2, 2).permute(0, 3, 2, 1)
    merging.reduction.weight.data = weight.reshape(16, 32)
    with torch.no_grad():
        image = torch.randn(2, 3, *size)
        expected, shape = swin_embed(image)
        tokens = tokenizer(image)
        assert tokens.shape[1:3] == shape
        torch.testing.assert_close(tokens.flatten(1, 2), expected)
        expected, shape = swin_merging(expected, shape)
        merged = merging(tokens)
        assert merged.shape[1:3] == shape
        torch.testing.assert_close(merged.flatten(1, 2), expected)


def test_merging_of_an_odd_map_pads_below_and_right():
    merging = PatchMerging(2)
    x = torch.randn(1, 3, 5, 2)
    padded = torch.zeros(1, 4, 6, 2)
    padded[:, :3, :5] = x
    corners = [padded[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
    expected = layer_norm(torch.cat(corners, -1), (8,)) @ merging.reduction.weight.T
    torch.testing.assert_close(merging(x), expected)


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'patch_norm': 1}, TypeError, 'patch_norm must be True or False, got 1'),
        ({'arch': 'mini'}, ValueError, "must be one of tiny, small, base, large, got 'mini'"),
        ({'dilations': None}, ValueError, 'DiNAT_s without arch needs dilations'),
        ({'patch_size': 4}, TypeError, "unexpected keyword argument 'patch_size'"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else '',
)
def test_mistakes(make_dinat_s, options, error, message):
    with pytest.raises(error, match=message):
        make_dinat_s(**options)
