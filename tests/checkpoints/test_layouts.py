"""Tests recognizing and converting layouts: classifiers, backbones, and what is refused."""

import argparse

import pytest
import torch
from mmengine.runner import load_checkpoint
from torch.testing import assert_close

from nat_mm.checkpoints import convert_checkpoint, convert_weights, load_pretrained

from .models import (
    FAMILIES,
    ImageClassifier,
    assert_same,
    make_backbone,
    make_classifier,
)

WRAPPINGS = {
    'raw': lambda weights: weights,
    'state_dict': lambda weights: {'epoch': 3, 'state_dict': weights},
    'model': lambda weights: {'model': weights, 'optimizer': {'state': {}}},
    'distributed': lambda weights: {f'module.{key}': value for key, value in weights.items()},
    # as timm's training script saves it
    'timm': lambda weights: {
        'state_dict': weights,
        'args': argparse.Namespace(lr=0.001),
        'arch': 'nat_mini',
    },
}


def convert(state_dict, to):
    return convert_weights(state_dict, to=to)


def authors_scores(backbone, weights, image):
    """Applies the authors' classifier: last norm, average over positions, linear head."""
    (features,) = backbone(image)
    return features.mean((2, 3)) @ weights['head.weight'].T + weights['head.bias']


@pytest.mark.parametrize('wrap', WRAPPINGS.values(), ids=WRAPPINGS)
@pytest.mark.parametrize('family', FAMILIES)
def test_classifier_of_the_authors_becomes_a_whole_classifier(save, family, wrap):
    weights = make_classifier(family)
    model = ImageClassifier(make_backbone(family, out_indices=(3,)))
    load_checkpoint(model, save(wrap(weights)), strict=True)
    reference = make_backbone(family, out_indices=(3,))
    trunk = {key: value for key, value in weights.items() if not key.startswith('head.')}
    for kind in ('weight', 'bias'):
        trunk[f'norm3.{kind}'] = trunk.pop(f'norm.{kind}')
    reference.load_state_dict(trunk, strict=True)
    image = torch.randn(1, 3, 64, 40)
    with torch.no_grad():
        assert_close(model(image), authors_scores(reference, weights, image))


@pytest.mark.parametrize('outputs', [(0, 1, 2, 3), (3,)], ids=['dense', 'last stage'])
@pytest.mark.parametrize(
    ('layout', 'prefix'), [('authors', None), ('model', None), ('model', 'backbone.')]
)
def test_init_cfg_uses_the_last_norm_only_for_the_last_stage(save, layout, prefix, outputs):
    weights = make_classifier('DiNAT')
    path = save(convert(weights, layout))
    backbone = make_backbone('DiNAT', out_indices=outputs)
    backbone.init_cfg = {'type': 'Pretrained', 'checkpoint': path, 'prefix': prefix}
    before = backbone.norm3.weight.clone()
    backbone.init_weights()
    wanted = weights['norm.weight'] if outputs == (3,) else before
    assert torch.equal(backbone.norm3.weight, wanted)
    assert torch.equal(backbone.levels[3].blocks[0].attn.rpb, weights['levels.3.blocks.0.attn.rpb'])


@pytest.mark.parametrize('layout', ['authors', 'model', 'backbone'])
def test_dense_backbone_takes_all_it_needs_from_a_classifier(save, layout):
    backbone = make_backbone('DiNAT_s')
    report = load_pretrained(backbone, save(convert(make_classifier('DiNAT_s'), layout)))
    assert not report.unexpected
    assert {key.partition('.')[0] for key in report.missing} == {'norm0', 'norm1', 'norm2', 'norm3'}


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
@pytest.mark.parametrize('family', FAMILIES)
def test_classifier_to_model_and_back_is_exact(save, tmp_path, family, suffix):
    weights = make_classifier(family)
    paths = [str(tmp_path / f'{name}.{suffix}') for name in ('model', 'back')]
    convert_checkpoint(save(weights), paths[0])
    convert_checkpoint(paths[0], paths[1], to='authors')
    model = make_backbone(family, out_indices=(3,))
    load_pretrained(model, paths[1])
    assert torch.equal(model.norm3.bias, weights['norm.bias'])
    if suffix == 'pth':
        # The authors' own load_state_dict takes these weights.
        assert_same(torch.load(paths[1]), weights)


def test_backbone_target_drops_the_last_norm_and_the_head():
    weights = make_classifier()
    found = convert(weights, 'backbone')
    assert set(weights) - set(found) == {'norm.weight', 'norm.bias', 'head.weight', 'head.bias'}


@pytest.mark.parametrize('to', ['model', 'authors'])
def test_detector_keeps_its_keys(to):
    detector = {f'backbone.{key}': value for key, value in make_backbone().state_dict().items()}
    detector['neck.lateral_convs.0.conv.weight'] = torch.randn(2)
    assert_same(convert(detector, to), detector)


def test_backbone_of_a_detector():
    backbone = make_backbone().state_dict()
    detector = {f'backbone.{key}': value for key, value in backbone.items()}
    detector['neck.lateral_convs.0.conv.weight'] = torch.randn(2)
    assert_same(convert(detector, 'backbone'), backbone)
    theirs = convert(detector, 'huggingface-nat')
    assert_same(convert(theirs, 'backbone'), backbone)


def test_half_precision_stays():
    weights = {key: value.half() for key, value in make_classifier().items()}
    back = convert(convert(weights, 'huggingface-nat'), 'authors')
    assert_same(back, weights)


ZEROS = torch.zeros(1)
FOREIGN = {
    'ResNet': ({'conv1.weight': ZEROS, 'fc.bias': ZEROS}, 'not a checkpoint of a NAT'),
    'Swin': (
        {
            'patch_embed.proj.weight': ZEROS,
            'layers.0.blocks.0.attn.relative_position_bias_table': ZEROS,
        },
        "do not have 'layers.0.blocks.0.attn.relative_position_bias_table'",
    ),
    'Swin detector': ({'backbone.stages.0.blocks.0.norm1.weight': ZEROS}, "do not have 'stages.0"),
    'ViT of Hugging Face': (
        {'vit.encoder.layer.0.attention.attention.query.weight': ZEROS},
        'not a checkpoint of a NAT',
    ),
    'no layers': ({'patch_embed.norm.weight': ZEROS}, 'has no layers'),
    'query without key': (
        {'nat.encoder.levels.0.layers.0.attention.self.query.weight': ZEROS},
        'key.weight is missing',
    ),
}


@pytest.mark.parametrize(('weights', 'message'), FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize('to', ['model', 'authors'])
def test_other_architectures_are_refused(weights, message, to):
    with pytest.raises(ValueError, match=message):
        convert(weights, to)


def test_dinat_s_has_no_counterpart_at_hugging_face():
    with pytest.raises(ValueError, match='DiNAT_s, which Hugging Face does not have'):
        convert(make_classifier('DiNAT_s'), 'huggingface-dinat')


def test_unequal_query_and_key():
    weights = convert(make_classifier(), 'huggingface-nat')
    weights['nat.encoder.levels.0.layers.0.attention.self.key.weight'] = torch.zeros(32, 7)
    with pytest.raises(ValueError, match=r'attn.qkv.weight must have one shape .*\[32, 7\]'):
        convert(weights, 'model')


@pytest.mark.parametrize(
    ('key', 'shape', 'message'),
    [
        ('levels.0.blocks.0.attn.qkv.weight', (32, 32), 'must have 3 equal parts'),
        ('levels.0.blocks.0.gamma1', (32,), 'gamma2 is missing'),
    ],
    ids=['qkv of two parts', 'half a layer scale'],
)
def test_weights_that_cannot_be_hugging_faces(key, shape, message):
    with pytest.raises(ValueError, match=message):
        convert({**make_classifier(), key: torch.zeros(shape)}, 'huggingface-nat')


def test_unknown_target():
    with pytest.raises(ValueError, match="to must be one of model, .* got 'timm'"):
        convert(make_classifier(), 'timm')
