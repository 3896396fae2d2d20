"""Tests NATIsotropic, a detector on it, and the facts and files of published classifiers."""

import copy
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from torch.nn.functional import gelu, layer_norm, linear
from torch.testing import assert_close

from nat_mm.analysis.flops import count_costs
from nat_mm.analysis.workloads import find_workload
from nat_mm.backbones import NATIsotropic, SimpleFeaturePyramid
from nat_mm.checkpoints import convert_weights
from nat_mm.layers import NeighborhoodAttention2D, SelfAttention2D
from tests.model_zoo import ROOT

CONFIGS = ROOT / 'configs/classification/isotropic'
PUBLISHED = json.loads((ROOT / 'tests/data/published_experiments.json').read_text())['isotropic']
pytest.importorskip('mmpretrain', reason='classification needs mmpretrain')
SMALL = {'embed_dim': 32, 'depth': 2, 'num_heads': 2}


def make(**options):
    torch.manual_seed(0)
    model = NATIsotropic(**{**SMALL, **options}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(params=PUBLISHED, ids=lambda facts: facts['name'])
def published(request):
    """Facts, config and model of each published classifier, without memory for its weights."""
    facts = request.param
    config = Config.fromfile(CONFIGS / f'{facts["name"]}_in1k_{facts["resolution"]}.py')
    init_default_scope(config.default_scope)
    with torch.device('meta'):
        return facts, config, MODELS.build(config.model)


def test_every_published_classifier_has_a_config():
    assert {path.stem for path in CONFIGS.glob('*.py')} == {
        f'{facts["name"]}_in1k_224' for facts in PUBLISHED
    }


def test_published_facts(published):
    facts, config, model = published
    backbone = model.backbone
    assert backbone.patch_embed.proj.kernel_size == (facts['patch_size'],) * 2
    assert len(backbone.layers) == facts['depth']
    kinds = {type(layer.attn) for layer in backbone.layers}
    if facts['kernel_size'] is None:
        assert kinds == {SelfAttention2D}
        tokens = facts['resolution'] // facts['patch_size']
        assert {layer.attn.map_size for layer in backbone.layers} == {tokens}
    else:
        assert kinds == {NeighborhoodAttention2D}
        assert {layer.attn.kernel_size for layer in backbone.layers} == {facts['kernel_size']}
        assert [layer.attn.dilation for layer in backbone.layers] == facts['dilations']
    for layer in backbone.layers:
        assert layer.attn.num_heads == facts['num_heads']
        assert layer.mlp.fc1.out_features == facts['mlp_ratio'] * facts['embed_dim']
        assert layer.attn.rpb is not None
    rates = [layer.drop_path.p for layer in backbone.layers]
    assert (rates[0], rates[-1]) == (0, facts['drop_path_rate'])
    assert {step.type: step for step in config.test_pipeline}['CenterCrop'].crop_size == 224
    assert model.head.fc.in_features == facts['embed_dim']


def test_published_parameters_and_flops(published):
    facts, config, model = published
    workload = find_workload(model, config)
    costs = count_costs(copy.deepcopy(model), workload.find_shape(config), workload.run)
    wanted = facts['published']
    assert costs.parameters[''] / 1e6 == pytest.approx(wanted['params_M'], abs=0.7)
    assert costs.multiply_adds[''] / 1e9 == pytest.approx(wanted['flops_G'], rel=0.01)


def authors_shapes(*, embed_dim, depth, num_heads, mlp_ratio, table, tokens, classes):
    """Returns the shapes in the authors' file by key; ``tokens`` is nonzero for ViT-rpb only."""
    shapes = {}

    def add(name, *shape):
        shapes[f'{name}.weight'], shapes[f'{name}.bias'] = shape, shape[:1]

    add('patch_embed.proj', embed_dim, 3, 16, 16)
    add('patch_embed.norm', embed_dim)
    for layer in range(depth):
        name = f'layers.{layer}'
        add(f'{name}.norm1', embed_dim)
        add(f'{name}.norm2', embed_dim)
        add(f'{name}.attn.qkv', 3 * embed_dim, embed_dim)
        add(f'{name}.attn.proj', embed_dim, embed_dim)
        shapes[f'{name}.attn.rpb'] = (num_heads, table, table)
        if tokens:
            shapes[f'{name}.attn.relative_position_index'] = (tokens, tokens)
        add(f'{name}.mlp.fc1', mlp_ratio * embed_dim, embed_dim)
        add(f'{name}.mlp.fc2', embed_dim, mlp_ratio * embed_dim)
    add('norm', embed_dim)
    add('head', classes, embed_dim)
    return shapes


def test_authors_file_fits_the_config(published):
    facts, _, model = published
    shapes = authors_shapes(
        **{name: facts[name] for name in ('embed_dim', 'depth', 'num_heads')},
        mlp_ratio=int(facts['mlp_ratio']),
        table=13 if facts['kernel_size'] else 27,
        tokens=0 if facts['kernel_size'] else 14**2,
        classes=1000,
    )
    weights = {key: torch.empty(shape, device='meta') for key, shape in shapes.items()}
    converted = convert_weights(weights, to='model')
    assert {key: tensor.shape for key, tensor in converted.items()} == {
        key: tensor.shape for key, tensor in model.state_dict().items()
    }
    assert convert_weights(weights, to='authors').keys() == weights.keys()
    with pytest.raises(ValueError, match='isotropic model, which Hugging Face does not have'):
        convert_weights(weights, to='huggingface-nat')


def authors_index(size):
    """Returns the index of each token pair's bias in the flattened table."""
    places = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    offsets = places[None, :] - places[:, None] + size - 1
    return offsets[..., 0] * (2 * size - 1) + offsets[..., 1]


def authors_vitrpb(weights, image, *, heads):
    """Computes the authors' ViT-rpb from its weights alone."""

    def apply(function, x, name):
        shape = x.shape[-1:] if function is layer_norm else ()
        parts = weights[f'{name}.weight'], weights[f'{name}.bias']
        return function(x, shape, *parts) if shape else function(x, *parts)

    x = torch.nn.functional.conv2d(
        image, weights['patch_embed.proj.weight'], weights['patch_embed.proj.bias'], stride=16
    )
    x = apply(layer_norm, x.flatten(2).transpose(1, 2), 'patch_embed.norm')
    batch, tokens, channels = x.shape
    for layer in range(SMALL['depth']):
        name = f'layers.{layer}'
        qkv = apply(linear, apply(layer_norm, x, f'{name}.norm1'), f'{name}.attn.qkv')
        query, key, value = (
            part.view(batch, tokens, heads, -1).transpose(1, 2) for part in qkv.chunk(3, -1)
        )
        index = weights[f'{name}.attn.relative_position_index']
        bias = weights[f'{name}.attn.rpb'].flatten(1)[:, index.flatten()].view(-1, tokens, tokens)
        scores = query @ key.mT / query.shape[-1] ** 0.5 + bias
        attended = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        x = x + apply(linear, attended, f'{name}.attn.proj')
        hidden = gelu(apply(linear, apply(layer_norm, x, f'{name}.norm2'), f'{name}.mlp.fc1'))
        x = x + apply(linear, hidden, f'{name}.mlp.fc2')
    return apply(linear, apply(layer_norm, x, 'norm').mean(1), 'head')


def test_authors_vitrpb_gives_the_same_scores(tmp_path):
    torch.manual_seed(0)
    shapes = authors_shapes(**SMALL, mlp_ratio=4, table=7, tokens=16, classes=5)
    weights = {
        key: authors_index(4) if key.endswith('index') else 0.2 * torch.randn(shape)
        for key, shape in shapes.items()
    }
    torch.save(weights, tmp_path / 'authors.pth')
    config = Config.fromfile(CONFIGS / 'vitrpb_small_in1k_224.py').model
    config.backbone.update(arch=None, map_size=4, out_indices=(1,), **SMALL)
    config.head.update(in_channels=32, num_classes=5)
    config.train_cfg = None
    init_default_scope('mmpretrain')
    model = MODELS.build(config).eval()
    load_checkpoint(model, str(tmp_path / 'authors.pth'), strict=True)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert_close(model(image), authors_vitrpb(weights, image, heads=2), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('kernel_size', [3, None], ids=['neighborhood', 'whole map'])
@pytest.mark.parametrize('size', [(32, 48), (65, 90)], ids=['32x48', '65x90'])
def test_features(kernel_size, size):
    model = make(kernel_size=kernel_size, map_size=3, out_indices=(0, 1))
    image = torch.randn(2, 3, *size)
    with torch.no_grad():
        features = model(image)
        tokens = model.patch_embed(image)
        expected = model.norm1(model.layers[1](model.layers[0](tokens))).movedim(-1, 1)
    assert [tuple(each.shape) for each in features] == [
        (2, 32, -(-size[0] // 16), -(-size[1] // 16))
    ] * 2
    assert all(each.is_contiguous() for each in features)
    assert_close(features[1], expected)


@pytest.mark.parametrize('kernel_size', [3, None], ids=['neighborhood', 'whole map'])
def test_training(kernel_size):
    image = torch.randn(2, 3, 48, 64)
    gradients = []
    for with_cp in (False, True):
        model = make(kernel_size=kernel_size, map_size=3, with_cp=with_cp).train()
        model(image)[0].square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain.abs().sum() > 0
        assert_close(recomputed, plain)


@pytest.mark.parametrize('arch', ['nat_small', 'vitrpb_small'])
def test_depth_replaces_that_of_an_architecture_without_dilations(arch):
    with torch.device('meta'):
        assert len(NATIsotropic(arch=arch, depth=6).layers) == 6


def test_frozen_and_unused_layers():
    model = make(depth=3, kernel_size=3, out_indices=(0, 1), frozen_layers=1).train()
    trained = [name for name, each in model.named_parameters() if each.requires_grad]
    assert {name.rpartition('.')[0] for name in trained if 'layers' not in name} == {'norm1'}
    assert {name[:9] for name in trained if 'layers' in name} == {'layers.1.'}
    assert not model.layers[0].training
    assert not model.patch_embed.training
    assert model.layers[1].training


def test_pretrained_weights_of_another_map_size(tmp_path):
    source = make(map_size=3)
    torch.save(source.state_dict(), tmp_path / 'weights.pth')
    target = make(
        map_size=5, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    )
    target.init_weights()
    assert_close(target.layers[1].mlp.fc1.weight, source.layers[1].mlp.fc1.weight)
    assert target.layers[0].attn.rpb.shape == (2, 9, 9)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'arch': 'tiny'}, "arch must be one of nat_small, nat_base, .*, got 'tiny'"),
        ({'embed_dim': 32}, 'without arch .*, depth, num_heads must be given'),
        ({**SMALL, 'dilations': (1, 2)}, 'whole map has no dilations; give kernel_size'),
        ({**SMALL, 'kernel_size': 3, 'dilations': (1,)}, 'each of the 2 layers, got 1'),
        ({**SMALL, 'kernel_size': 3, 'dilations': 2}, 'a list of one int per layer, got 2'),
        ({**SMALL, 'out_indices': (2,)}, r'layers from 0 to 1 .*, got \[2\]'),
        ({**SMALL, 'frozen_layers': 3}, r'to 2 \(all layers\), got 3'),
        ({**SMALL, 'map_size': 0}, 'map_size must be at least 1, got 0'),
        ({**SMALL, 'kernel_size': 0}, 'kernel_size must be .*, got 0'),
        ({**SMALL, 'attention_backend': 'cpu'}, "leave .* at 'auto', got 'cpu'"),
        ({**SMALL, 'mlp_ratio': float('inf')}, 'mlp_ratio must be finite, got inf'),
        ({**SMALL, 'with_cp': 1}, 'with_cp must be True or False, got 1'),
        ({**SMALL, 'qkv_bias': None}, 'qkv_bias must be True or False, got None'),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else '',
)
def test_wrong_arguments(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        NATIsotropic(**options)


def test_pyramid():
    torch.manual_seed(0)
    neck = SimpleFeaturePyramid(in_channels=32, out_channels=16)
    levels = neck((torch.randn(2, 8, 5, 7), torch.randn(2, 32, 5, 7)))
    assert [tuple(level.shape) for level in levels] == [
        (2, 16, height, width) for height, width in ((20, 28), (10, 14), (5, 7), (3, 4), (2, 2))
    ]
    assert all(level.is_contiguous() for level in levels)
    assert_close(levels[2].mean(1), torch.zeros(2, 5, 7))  # normalized over channels


def test_detector_trains():
    from mmdet.testing import demo_mm_inputs

    path = ROOT / 'configs/detection/isotropic/mask_rcnn_dinat_isotropic_small_3x_coco.py'
    config = Config.fromfile(path)
    init_default_scope(config.default_scope)
    model_config = config.model
    model_config.backbone.update(arch=None, kernel_size=3, dilations=(1, 2), init_cfg=None, **SMALL)
    model_config.neck.update(in_channels=32, out_channels=32)
    model_config.rpn_head.update(in_channels=32, feat_channels=32)
    for extractor in ('bbox_roi_extractor', 'mask_roi_extractor'):
        model_config.roi_head[extractor].out_channels = 32
    model_config.roi_head.bbox_head.update(in_channels=32, fc_out_channels=32)
    model_config.roi_head.mask_head.update(in_channels=32, conv_out_channels=32)
    torch.manual_seed(0)
    model = MODELS.build(model_config)
    packed = demo_mm_inputs(2, [[3, 96, 128], [3, 128, 96]], num_classes=80, with_mask=True)
    data = model.data_preprocessor(packed, training=True)
    losses = model.loss(data['inputs'], data['data_samples'])
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert loss.isfinite()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all()
        for part in (model.backbone, model.neck)
        for parameter in part.parameters()
    )
