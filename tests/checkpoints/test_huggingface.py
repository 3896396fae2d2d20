"""Tests that Hugging Face's Nat and Dinat give the same outputs and survive round trips exactly."""

import importlib
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from nat_mm.checkpoints import convert_checkpoint, load_pretrained

from .models import CLASSES, DILATIONS, SMALL, ImageClassifier, assert_same, make_backbone

pytest.importorskip('transformers', reason='transformers is not installed')
importlib.import_module('nat_mm.integrations.transformers')
FAMILIES = {'nat': 'NAT', 'dinat': 'DiNAT'}


@pytest.fixture(params=FAMILIES)
def theirs(request):
    """A model type of transformers.

    transformers 5 has no Nat. It equals Dinat with dilation 1 everywhere, except that the keys of
    its classifiers begin with another name.
    """
    from transformers.models.dinat import configuration_dinat, modeling_dinat

    model_type = request.param
    dilations = {
        'nat': tuple((1,) * depth for depth in SMALL['depths']),
        'dinat': DILATIONS,
    }[model_type]

    def make(kind, **options):
        options = {**SMALL, 'dilations': dilations, **options}
        config = configuration_dinat.DinatConfig(**options)
        model = getattr(modeling_dinat, f'Dinat{kind}')(config).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        return model

    def state_dict(model):
        """Returns the weights of a model with the keys of its type."""
        return rename(model.state_dict(), 'dinat', model_type)

    def load(model, weights):
        model.load_state_dict(rename(weights, model_type, 'dinat'), strict=True)

    def save(model, folder, suffix):
        """Saves a model as transformers does; version 5 writes safetensors only."""
        model.save_pretrained(folder)
        path = folder / 'model.safetensors'
        weights = rename(load_file(path), 'dinat', model_type)
        if suffix == 'bin':
            path = folder / 'pytorch_model.bin'
            torch.save(weights, path)
        elif model_type == 'nat':
            save_file(weights, path, metadata={'format': 'pt'})
        return str(path)

    return SimpleNamespace(
        model_type=model_type,
        family=FAMILIES[model_type],
        make=make,
        state_dict=state_dict,
        load=load,
        save=save,
    )


def rename(weights, old, new):
    """Replaces the name that the keys of classifiers begin with."""
    return {
        f'{new}.{key.removeprefix(old + ".")}' if key.startswith(f'{old}.') else key: tensor
        for key, tensor in weights.items()
    }


STAGES = ['stage1', 'stage2', 'stage3', 'stage4']
# The stages of the smaller image are 8 x 11, 4 x 6, 2 x 3 and 1 x 2. Kernel size times dilation
# reaches 9 in DiNAT's first stage and is 3 in the last.
IMAGES = {'smaller than the windows': (32, 42), 'larger': (105, 97)}


@pytest.mark.parametrize('layer_scale', [None, 0.1], ids=['no layer scale', 'layer scale'])
@pytest.mark.parametrize('suffix', ['bin', 'safetensors'])
def test_features_of_a_backbone(theirs, tmp_path, suffix, layer_scale):
    source = theirs.make('Backbone', out_features=STAGES, layer_scale_init_value=layer_scale or 0.0)
    checkpoint = theirs.save(source, tmp_path, suffix)
    model = make_backbone(theirs.family, layer_scale=layer_scale)
    model.init_cfg = {'type': 'Pretrained', 'checkpoint': checkpoint}
    model.init_weights()
    for size in IMAGES.values():
        image = torch.randn(2, 3, *size)
        with torch.no_grad():
            wanted, found = source(image).feature_maps, model(image)
        for stage in range(4):
            assert wanted[stage].std() > 0.1
            assert_close(found[stage], wanted[stage], atol=1e-5, rtol=1e-5)


def test_classifier_with_its_head(theirs, tmp_path):
    source = theirs.make('ForImageClassification', num_labels=CLASSES)
    checkpoint = theirs.save(source, tmp_path, 'safetensors')
    convert_checkpoint(checkpoint, str(tmp_path / 'model.pth'))
    model = ImageClassifier(make_backbone(theirs.family, out_indices=(3,)))
    model.load_state_dict(torch.load(tmp_path / 'model.pth')['state_dict'], strict=True)
    for size in IMAGES.values():
        image = torch.randn(2, 3, *size)
        with torch.no_grad():
            assert_close(model(image), source(image).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        ('Model', {}),
        ('ForImageClassification', {'num_labels': CLASSES, 'layer_scale_init_value': 0.1}),
        ('Backbone', {'out_features': STAGES}),
        ('Backbone', {'out_features': ['stage2', 'stage4'], 'qkv_bias': False}),
    ],
    ids=['model', 'classifier', 'backbone', 'backbone of two outputs'],
)
def test_there_and_back_is_exact(theirs, tmp_path, kind, options):
    source = theirs.make(kind, **options)
    paths = [str(tmp_path / name) for name in ('ours.pth', 'back.safetensors')]
    convert_checkpoint(theirs.save(source, tmp_path, 'bin'), paths[0])
    convert_checkpoint(paths[0], paths[1], to=f'huggingface-{theirs.model_type}')
    assert_same(load_file(paths[1]), theirs.state_dict(source))
    weights = rename(load_file(paths[1]), theirs.model_type, 'dinat')
    back = type(source).from_pretrained(None, config=source.config, state_dict=weights)
    assert_same(back.state_dict(), source.state_dict())


@pytest.mark.parametrize('target', ['backbone', 'model'])
@pytest.mark.parametrize('layer_scale', [False, 0.1], ids=['no layer scale', 'layer scale'])
def test_ours_to_theirs_and_back_is_exact(theirs, save, tmp_path, layer_scale, target):
    ours = make_backbone(theirs.family, layer_scale=layer_scale)
    prefix = {'backbone': '', 'model': 'backbone.'}[target]
    state_dict = {prefix + key: value for key, value in ours.state_dict().items()}
    paths = [str(tmp_path / name) for name in ('theirs.bin', 'back.pth')]
    convert_checkpoint(save(state_dict), paths[0], to=f'huggingface-{theirs.model_type}')
    model = theirs.make('Backbone', out_features=STAGES, layer_scale_init_value=layer_scale or 0.0)
    theirs.load(model, torch.load(paths[0]))
    image = torch.randn(1, 3, 64, 75)
    with torch.no_grad():
        for found, wanted in zip(model(image).feature_maps, ours(image), strict=True):
            assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    convert_checkpoint(paths[0], paths[1], to=target)
    back = torch.load(paths[1])
    assert_same(back['state_dict'] if target == 'model' else back, state_dict)


def test_backbone_inside_of_another_model(theirs, save):
    source = theirs.make('Backbone', out_features=STAGES)
    path = save({f'model.encoder.{key}': value for key, value in theirs.state_dict(source).items()})
    model = make_backbone(theirs.family)
    report = load_pretrained(model, path, prefix='model.encoder')
    assert not report.missing
    assert not report.unexpected
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert_close(model(image)[3], source(image).feature_maps[3], atol=1e-5, rtol=1e-5)
