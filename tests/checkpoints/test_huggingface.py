"""Hugging Face's Nat and Dinat: the same outputs there and here, and exact round trips."""

import importlib
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from nat_mm.checkpoints import convert_checkpoint, load_pretrained
from nat_mm.ops import neighborhood_attention_2d

from .models import CLASSES, DILATIONS, SMALL, ImageClassifier, assert_same, make_backbone

pytest.importorskip('transformers', reason='transformers is not installed')
FAMILIES = {'nat': 'NAT', 'dinat': 'DiNAT'}


@pytest.fixture(params=FAMILIES)
def theirs(request, monkeypatch):
    """A model type of transformers, whose attention runs on our operator."""
    model_type = request.param
    folder = f'deprecated.{model_type}' if model_type == 'nat' else model_type
    try:
        modeling = importlib.import_module(f'transformers.models.{folder}.modeling_{model_type}')
    except ImportError:
        pytest.skip(f'this version of transformers has no {model_type}; 4.46.3 has')
    config = importlib.import_module(f'transformers.models.{folder}.configuration_{model_type}')
    monkeypatch.setattr(modeling, 'requires_backends', lambda *_: None)
    monkeypatch.setattr(modeling.NeighborhoodAttention, 'forward', attend)
    class_name = model_type.capitalize()

    def make(kind, **options):
        if model_type == 'dinat':
            options['dilations'] = DILATIONS
        model = getattr(modeling, class_name + kind)(
            getattr(config, f'{class_name}Config')(**{**SMALL, **options})
        ).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        return model

    return SimpleNamespace(model_type=model_type, family=FAMILIES[model_type], make=make)


def attend(self, hidden_states, output_attentions=False):
    """Stands in for NATTEN's functions, which current NATTEN does not have any more."""
    heads = (self.num_attention_heads, self.attention_head_size)
    query, key, value = (
        project(hidden_states).unflatten(-1, heads)
        for project in (self.query, self.key, self.value)
    )
    context = neighborhood_attention_2d(
        query,
        key,
        value,
        kernel_size=self.kernel_size,
        dilation=getattr(self, 'dilation', 1),
        bias=self.rpb,
    )
    return (context.flatten(3),)


STAGES = ['stage1', 'stage2', 'stage3', 'stage4']
# The stages of the smaller image are 8 x 11, 4 x 6, 2 x 3 and 1 x 2; kernel size times dilation
# reaches 9 in the first for DiNAT, and is 3 in the last.
IMAGES = {'smaller than the windows': (32, 42), 'larger': (105, 97)}


def save_model(model, folder, suffix):
    model.save_pretrained(folder, safe_serialization=suffix == 'safetensors')
    name = 'model.safetensors' if suffix == 'safetensors' else 'pytorch_model.bin'
    return str(folder / name)


@pytest.mark.parametrize('layer_scale', [None, 0.1], ids=['no layer scale', 'layer scale'])
@pytest.mark.parametrize('suffix', ['bin', 'safetensors'])
def test_features_of_a_backbone(theirs, tmp_path, suffix, layer_scale):
    source = theirs.make('Backbone', out_features=STAGES, layer_scale_init_value=layer_scale or 0)
    checkpoint = save_model(source, tmp_path, suffix)
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
    checkpoint = save_model(source, tmp_path, 'safetensors')
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
    convert_checkpoint(save_model(source, tmp_path, 'bin'), paths[0])
    convert_checkpoint(paths[0], paths[1], to=f'huggingface-{theirs.model_type}')
    back = type(source).from_pretrained(
        None, config=source.config, state_dict=load_safetensors(paths[1])
    )
    assert_same(back.state_dict(), source.state_dict())
    assert_same(load_safetensors(paths[1]), source.state_dict())


@pytest.mark.parametrize('target', ['backbone', 'model'])
@pytest.mark.parametrize('layer_scale', [False, 0.1], ids=['no layer scale', 'layer scale'])
def test_ours_to_theirs_and_back_is_exact(theirs, save, tmp_path, layer_scale, target):
    ours = make_backbone(theirs.family, layer_scale=layer_scale)
    prefix = {'backbone': '', 'model': 'backbone.'}[target]
    state_dict = {prefix + key: value for key, value in ours.state_dict().items()}
    paths = [str(tmp_path / name) for name in ('theirs.bin', 'back.pth')]
    convert_checkpoint(save(state_dict), paths[0], to=f'huggingface-{theirs.model_type}')
    model = theirs.make('Backbone', out_features=STAGES, layer_scale_init_value=layer_scale or 0)
    model.load_state_dict(torch.load(paths[0]), strict=True)
    image = torch.randn(1, 3, 64, 75)
    with torch.no_grad():
        for found, wanted in zip(model(image).feature_maps, ours(image), strict=True):
            assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    convert_checkpoint(paths[0], paths[1], to=target)
    back = torch.load(paths[1])
    assert_same(back['state_dict'] if target == 'model' else back, state_dict)


def test_backbone_inside_of_another_model(theirs, save):
    source = theirs.make('Backbone', out_features=STAGES)
    path = save({f'model.encoder.{key}': value for key, value in source.state_dict().items()})
    model = make_backbone(theirs.family)
    report = load_pretrained(model, path, prefix='model.encoder')
    assert not report.missing
    assert not report.unexpected
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert_close(model(image)[3], source(image).feature_maps[3], atol=1e-5, rtol=1e-5)


def load_safetensors(path):
    from safetensors.torch import load_file

    return load_file(path)
