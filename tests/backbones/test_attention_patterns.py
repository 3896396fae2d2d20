"""Tests backbones with other attention patterns, tokenizers and downsamplers."""

import pytest
import torch

from nat_mm.analysis.flops import count_costs
from nat_mm.backbones import NAT, DiNAT, DiNAT_s
from nat_mm.layers import (
    ATTENTION_PATTERNS,
    ConvDownsampler,
    ConvTokenizer,
    PatchMerging,
    PatchTokenizer,
)

SIZES = {'embed_dim': 16, 'depths': (2, 2, 1, 1), 'num_heads': (1, 2, 2, 4), 'kernel_size': 7}


def make_backbone(**options):
    torch.manual_seed(0)
    return NAT(**{**SIZES, **options})


def count(backbone, shape=(224, 224)):
    return count_costs(backbone, shape, lambda model, image: model(image))


@pytest.mark.parametrize('pattern', ATTENTION_PATTERNS)
def test_trains_on_any_size_and_exchanges_weights(pattern):
    backbone = make_backbone(attention=pattern, kernel_size=3, drop_path_rate=0.1).train()
    outputs = backbone(torch.randn(2, 3, 41, 70))
    assert [tuple(each.shape[2:]) for each in outputs] == [(11, 18), (6, 9), (3, 5), (2, 3)]
    sum(each.square().mean() for each in outputs).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    backbone.load_state_dict(make_backbone(kernel_size=3).state_dict())


def test_windows_are_shifted_in_every_second_layer():
    backbone = make_backbone(attention='shifted_window')
    shifts = [[block.attn.shift for block in stage.blocks] for stage in backbone.stages]
    assert shifts == [[0, 3], [0, 3], [0], [0]]


def test_windows_cost_what_neighborhoods_do_and_whole_maps_cost_their_square():
    costs = {name: count(make_backbone(attention=name)) for name in ATTENTION_PATTERNS}
    total = {name: each.multiply_adds[''] for name, each in costs.items()}
    assert total['neighborhood'] == total['sasa'] == total['shifted_window']
    maps = [(56, 16), (56, 16), (28, 32), (28, 32), (14, 64), (7, 128)]
    neighborhoods = sum(2 * side**2 * 7**2 * channels for side, channels in maps)
    whole = sum(2 * side**4 * channels for side, channels in maps)
    assert costs['neighborhood'].neighborhood_attention == neighborhoods
    assert costs['sasa'].neighborhood_attention == neighborhoods
    assert total['full'] - total['neighborhood'] == whole - neighborhoods


def test_counting_leaves_stand_alone_attention_as_it_was():
    backbone = make_backbone(attention='sasa', kernel_size=3).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = backbone(image)
        count_costs(backbone, (64, 64), lambda model, image: model(image))
        torch.testing.assert_close(backbone(image), before)


@pytest.mark.parametrize(
    ('family', 'options', 'tokenizer', 'downsampler'),
    [
        (NAT, {}, ConvTokenizer, ConvDownsampler),
        (NAT, {'tokenizer': 'patch'}, PatchTokenizer, ConvDownsampler),
        (NAT, {'downsampler': 'patch'}, ConvTokenizer, PatchMerging),
        (DiNAT_s, {}, PatchTokenizer, PatchMerging),
        (DiNAT_s, {'tokenizer': 'convolution'}, ConvTokenizer, PatchMerging),
        (DiNAT_s, {'downsampler': 'convolution'}, PatchTokenizer, ConvDownsampler),
    ],
    ids=str,
)
def test_tokenizer_and_downsampler(family, options, tokenizer, downsampler):
    arch = {'arch': 'mini' if family is NAT else 'tiny', **options}
    with torch.device('meta'):
        backbone = family(**arch)
    assert type(backbone.patch_embed) is tokenizer
    assert {type(stage.downsample) for stage in backbone.stages[:-1]} == {downsampler}
    image = torch.empty(1, 3, 50, 67, device='meta')
    assert [tuple(each.shape[2:]) for each in backbone(image)] == [(13, 17), (7, 9), (4, 5), (2, 3)]


@pytest.mark.parametrize(
    ('family', 'options', 'message'),
    [
        (NAT, {'attention': 'swin'}, "attention must be one of neighborhood.*got 'swin'"),
        (DiNAT, {'attention': 'full'}, "'full' has no dilation.*take the backbone NAT, got 8"),
        (NAT, {'tokenizer': 'conv'}, 'one of convolution, patch or None'),
        (NAT, {'downsampler': ['patch']}, r"downsampler must be one of.*got \['patch'\]"),
    ],
    ids=str,
)
def test_wrong_argument(family, options, message):
    with torch.device('meta'), pytest.raises(ValueError, match=message):
        family(arch='mini', **options)
