"""Tests the authors' Mask2Former models, whose weights have detectron2's keys."""

import re

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from torch.testing import assert_close

from nat_mm.checkpoints import convert_checkpoint, convert_weights, load_pretrained
from nat_mm.errors import CheckpointError
from nat_mm.ops import neighborhood_attention_2d
from tests.mask2former.small import BACKBONE, shipped_config, shrink_model

# Parts of Hugging Face's keys, and what detectron2 has in their place.
NAMES = [
    (r'^model\.pixel_level_module\.decoder\.', 'sem_seg_head.pixel_decoder.'),
    (r'decoder\.input_projections\.', 'decoder.input_proj.'),
    (r'decoder\.(level_embed|encoder)', r'decoder.transformer.\1'),
    (r'(encoder\.layers\.\d+\.)self_attn_layer_norm', r'\1norm1'),
    (r'(encoder\.layers\.\d+\.)final_layer_norm', r'\1norm2'),
    (r'(encoder\.layers\.\d+\.)fc', r'\1linear'),
    (r'(adapter_1|layer_1)\.0', r'\1'),
    (r'(adapter_1|layer_1)\.1', r'\1.norm'),
    (r'mask_projection', 'mask_features'),
    (r'^model\.transformer_module\.', 'sem_seg_head.predictor.'),
    (r'^class_predictor', 'sem_seg_head.predictor.class_embed'),
    (r'queries_features', 'query_feat'),
    (r'queries_embedder', 'query_embed'),
    (r'decoder\.layernorm', 'decoder_norm'),
    (r'decoder\.mask_predictor\.mask_embedder\.(\d)\.0', r'mask_embed.layers.\1'),
    (r'predictor\.decoder\.layers\.(\d+)\.fc', r'predictor.transformer_ffn_layers.\1.linear'),
    (
        r'predictor\.decoder\.layers\.(\d+)\.final_layer_norm',
        r'predictor.transformer_ffn_layers.\1.norm',
    ),
    (
        r'predictor\.decoder\.layers\.(\d+)\.(self|cross)_attn_layer_norm',
        r'predictor.transformer_\2_attention_layers.\1.norm',
    ),
    (
        r'predictor\.decoder\.layers\.(\d+)\.self_attn',
        r'predictor.transformer_self_attention_layers.\1.self_attn',
    ),
    (
        r'predictor\.decoder\.layers\.(\d+)\.cross_attn',
        r'predictor.transformer_cross_attention_layers.\1.multihead_attn',
    ),
]


def to_detectron2(weights):
    """Converts the keys of transformers' Mask2Former with a Dinat to those of the authors."""
    encoder = 'model.pixel_level_module.encoder.'
    backbone = {
        key.removeprefix(encoder): tensor
        for key, tensor in weights.items()
        if key.startswith(encoder)
    }
    converted = {
        f'backbone.{key}': tensor
        for key, tensor in convert_weights(backbone, to='backbone').items()
    }
    for key, tensor in weights.items():
        if key.startswith(encoder) or key == 'criterion.empty_weight':
            continue
        if re.search(r'transformer_module.*self_attn\.[qkv]_proj', key):
            if '.q_proj' not in key:
                continue
            parts = [weights[key.replace('.q_proj', f'.{name}_proj')] for name in 'qkv']
            key, tensor = key.replace('.q_proj.', '.in_proj_'), torch.cat(parts)
        for theirs, original in NAMES:
            key = re.sub(theirs, original, key)
        converted[key] = tensor
    converted['criterion.empty_weight'] = torch.ones(3)
    return converted


def attend(self, hidden_states, output_attentions=False):
    """Replaces transformers' attention; see tests/checkpoints/test_huggingface.py."""
    heads = (self.num_attention_heads, self.attention_head_size)
    query, key, value = (
        project(hidden_states).unflatten(-1, heads)
        for project in (self.query, self.key, self.value)
    )
    options = dict(kernel_size=self.kernel_size, dilation=self.dilation, bias=self.rpb)
    return (neighborhood_attention_2d(query, key, value, **options).flatten(3),)


def make_theirs(monkeypatch, *, queries, classes):
    """Makes transformers' Mask2Former with a Dinat of the small configs' size."""
    transformers = pytest.importorskip('transformers', reason='transformers is not installed')
    from transformers.models.dinat import modeling_dinat

    monkeypatch.setattr(modeling_dinat, 'requires_backends', lambda *_: None)
    monkeypatch.setattr(modeling_dinat.NeighborhoodAttention, 'forward', attend)
    architecture = {name: BACKBONE[name] for name in ('embed_dim', 'depths', 'num_heads')}
    backbone = transformers.DinatConfig(
        **architecture,
        kernel_size=BACKBONE['kernel_size'],
        dilations=BACKBONE['dilations'],
        mlp_ratio=3.0,
        layer_scale_init_value=0.0,
        out_features=['stage1', 'stage2', 'stage3', 'stage4'],
    )
    config = transformers.Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=64,
        dim_feedforward=64,
        encoder_layers=1,
        decoder_layers=4,
        num_attention_heads=8,
        dropout=0.0,
        num_queries=queries,
        num_labels=classes,
    )
    model = transformers.Mask2FormerForUniversalSegmentation(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def make_ours(task):
    config = shipped_config(task)
    init_default_scope(config.default_scope)
    shrink_model(config)
    return MODELS.build(config.model).eval()


def outputs(model, image):
    """Returns the logits of classes and masks from the last layer."""
    head = getattr(model, 'decode_head', None) or model.panoptic_head
    features = model.extract_feat(image)
    classes, masks = head(features, [None] * len(image))
    return classes[-1], masks[-1]


def class_order(task, model):
    """Returns the positions of our classes in detectron2, which uses the datasets' order."""
    if not task.endswith('panoptic'):
        return list(range(model.num_classes))
    from mmseg.datasets import CityscapesDataset

    from nat_mm.data.cityscapes_panoptic import STUFF, THINGS

    names = list(CityscapesDataset.METAINFO['classes'])
    return [names.index(name) for name in (*THINGS, *STUFF)]


@pytest.mark.parametrize(
    ('task', 'queries', 'classes'),
    [
        ('cityscapes_semantic', 100, 19),
        ('cityscapes_panoptic', 200, 19),
    ],
    ids=lambda value: str(value),
)
def test_outputs_equal_those_of_transformers(monkeypatch, tmp_path, task, queries, classes):
    torch.manual_seed(0)
    theirs = make_theirs(monkeypatch, queries=queries, classes=classes)
    path = str(tmp_path / 'detectron2.pth')
    torch.save({'model': to_detectron2(theirs.state_dict()), 'iteration': 9}, path)
    ours = make_ours(task)
    load_checkpoint(ours, path, strict=True)
    head = getattr(ours, 'decode_head', None) or ours.panoptic_head
    order = [*class_order(task, head), classes]
    image = torch.randn(2, 3, 75, 106)
    with torch.no_grad():
        wanted = theirs(pixel_values=image)
        found_classes, found_masks = outputs(ours, image)
    assert wanted.masks_queries_logits.std() > 0.1
    assert_close(found_classes, wanted.class_queries_logits[..., order], atol=1e-4, rtol=1e-4)
    assert_close(found_masks, wanted.masks_queries_logits, atol=1e-4, rtol=1e-4)


def original_shapes(backbone, *, queries, classes):
    """Returns the shapes in the authors' file by key; ``backbone`` provides the backbone's."""
    shapes = {f'backbone.{key}': tuple(tensor.shape) for key, tensor in backbone.items()}

    def add(name, *shape, bias=True):
        shapes[f'sem_seg_head.{name}.weight'] = shape
        if bias:
            shapes[f'sem_seg_head.{name}.bias'] = shape[:1]

    def add_attention(name):
        shapes[f'sem_seg_head.{name}.in_proj_weight'] = (768, 256)
        shapes[f'sem_seg_head.{name}.in_proj_bias'] = (768,)
        add(f'{name}.out_proj', 256, 256)

    decoder, predictor = 'pixel_decoder', 'predictor'
    for level, channels in enumerate((1536, 768, 384)):
        add(f'{decoder}.input_proj.{level}.0', 256, channels, 1, 1)
        add(f'{decoder}.input_proj.{level}.1', 256)
    shapes[f'sem_seg_head.{decoder}.transformer.level_embed'] = (3, 256)
    for layer in range(6):
        name = f'{decoder}.transformer.encoder.layers.{layer}'
        # There are 8 heads, with 3 levels and 4 points each.
        for part, size in (('sampling_offsets', 192), ('attention_weights', 96)):
            add(f'{name}.self_attn.{part}', size, 256)
        for part in ('value_proj', 'output_proj'):
            add(f'{name}.self_attn.{part}', 256, 256)
        add(f'{name}.norm1', 256)
        add(f'{name}.norm2', 256)
        add(f'{name}.linear1', 1024, 256)
        add(f'{name}.linear2', 256, 1024)
    add(f'{decoder}.adapter_1', 256, 192, 1, 1, bias=False)
    add(f'{decoder}.layer_1', 256, 256, 3, 3, bias=False)
    for name in ('adapter_1', 'layer_1'):
        add(f'{decoder}.{name}.norm', 256)
    add(f'{decoder}.mask_features', 256, 256, 1, 1)
    for layer in range(9):
        for kind, part in (('self', 'self_attn'), ('cross', 'multihead_attn')):
            name = f'{predictor}.transformer_{kind}_attention_layers.{layer}'
            add_attention(f'{name}.{part}')
            add(f'{name}.norm', 256)
        name = f'{predictor}.transformer_ffn_layers.{layer}'
        add(f'{name}.linear1', 2048, 256)
        add(f'{name}.linear2', 256, 2048)
        add(f'{name}.norm', 256)
    add(f'{predictor}.decoder_norm', 256)
    for name in ('query_feat', 'query_embed'):
        add(f'{predictor}.{name}', queries, 256, bias=False)
    add(f'{predictor}.level_embed', 3, 256, bias=False)
    add(f'{predictor}.class_embed', classes + 1, 256)
    for layer in range(3):
        add(f'{predictor}.mask_embed.layers.{layer}', 256, 256)
    shapes['criterion.empty_weight'] = (classes + 1,)
    return shapes


def original_weights(model):
    head = getattr(model, 'decode_head', None) or model.panoptic_head
    shapes = original_shapes(
        model.backbone.state_dict(), queries=head.num_queries, classes=head.num_classes
    )
    return {key: torch.empty(shape, device='meta') for key, shape in shapes.items()}


def test_every_published_file_fits_its_config(built):
    _, _, model = built
    converted = convert_weights(original_weights(model), to='model')
    assert {key: tensor.shape for key, tensor in converted.items()} == {
        key: tensor.shape for key, tensor in model.state_dict().items()
    }


@pytest.mark.parametrize('built', ['ade20k_panoptic'], indirect=True)
def test_classes_of_ade20k(built):
    """Each class keeps its weights, though some names differ between the two lists."""
    from mmdet.datasets import ADE20KPanopticDataset
    from mmseg.datasets import ADE20KDataset

    _, _, model = built
    weights = original_weights(model)
    key = 'sem_seg_head.predictor.class_embed.bias'
    weights[key] = torch.arange(151)
    order = convert_weights(weights, to='model')['panoptic_head.cls_embed.bias'].tolist()
    assert sorted(order) == list(range(151))
    assert order[-1] == 150
    first_names = [re.split('[,;]', name)[0].strip() for name in ADE20KDataset.METAINFO['classes']]
    differing = {
        re.split('[,;]', name)[0]: first_names[number]
        for name, number in zip(ADE20KPanopticDataset.METAINFO['classes'], order, strict=False)
        if re.split('[,;]', name)[0] != first_names[number]
    }
    assert differing == {
        'window': 'windowpane',
        'tub': 'bathtub',
        'rail': 'railing',
        'street lamp': 'streetlight',
        'tv': 'television receiver',
        'clothes': 'apparel',
        'trash can': 'ashcan',
        'pool': 'swimming pool',
        'falls': 'waterfall',
    }


@pytest.fixture
def weights():
    """The weights of a small Mask2Former with the authors' keys."""
    from nat_mm.backbones import DiNAT

    options = {name: value for name, value in BACKBONE.items() if name != 'arch'}
    backbone = DiNAT(**options).state_dict()
    shapes = original_shapes(backbone, queries=200, classes=8)
    # All sizes but the number of queries are reduced, so that files are small.
    narrow = {
        key: [size if size == 200 else min(size, 32) for size in shape]
        for key, shape in shapes.items()
    }
    return {
        key: backbone.get(key.removeprefix('backbone.'), torch.zeros(shape))
        for key, shape in narrow.items()
    }


def test_backbone(weights, tmp_path):
    from nat_mm.backbones import DiNAT

    path = str(tmp_path / 'detectron2.pth')
    torch.save({'model': weights}, path)
    backbone = DiNAT(**{name: value for name, value in BACKBONE.items() if name != 'arch'})
    report = load_pretrained(backbone, path)
    assert not report.missing
    assert not report.unexpected
    assert torch.equal(backbone.norm3.weight, weights['backbone.norm3.weight'])
    assert torch.equal(
        backbone.levels[1].blocks[0].attn.rpb, weights['backbone.levels.1.blocks.0.attn.rpb']
    )


def test_file(weights, tmp_path):
    paths = [str(tmp_path / name) for name in ('detectron2.pth', 'model.pth')]
    torch.save({'model': weights}, paths[0])
    conversion = convert_checkpoint(*paths)
    assert conversion.layout == 'detectron2'
    assert (conversion.read, conversion.written) == (len(weights), len(weights) - 1)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda weights: weights.update(
                {
                    'sem_seg_head.predictor.static_query.weight': weights.pop(
                        'sem_seg_head.predictor.query_feat.weight'
                    )
                }
            ),
            'query_feat.weight is missing',
        ),
        (
            lambda weights: weights.update({'sem_seg_head.pixel_decoder.other': torch.zeros(1)}),
            'has sem_seg_head.pixel_decoder.other, which',
        ),
        (
            lambda weights: weights.update(
                {
                    'sem_seg_head.predictor.class_embed.weight': torch.zeros(13, 32),
                    'sem_seg_head.predictor.class_embed.bias': torch.zeros(13),
                }
            ),
            '200 queries and 12 classes, which is none of .* 200 and 8 .Cityscapes instance',
        ),
        (
            lambda weights: weights.update({'backbone.res2.0.conv1.weight': torch.zeros(1)}),
            "do not have 'res2.0.conv1.weight'",
        ),
    ],
    ids=['no queries', 'other part', 'other classes', 'other backbone'],
)
def test_other_weights_are_refused(weights, change, message):
    change(weights)
    with pytest.raises(CheckpointError, match=message):
        convert_weights(weights, to='model')


@pytest.mark.parametrize(
    ('name', 'shape', 'wanted'),
    [
        ('query_feat.weight', (), '[queries, channels]'),
        ('query_feat.weight', (200,), '[queries, channels]'),
        ('class_embed.weight', (), '[classes + 1, 32]'),
        ('class_embed.bias', (), '[9]'),
        ('class_embed.bias', (8,), '[9]'),
        ('class_embed.bias', (9, 1), '[9]'),
    ],
    ids=str,
)
def test_other_shapes_of_queries_and_classifier_are_refused(weights, name, shape, wanted):
    key = f'sem_seg_head.predictor.{name}'
    weights[key] = torch.zeros(shape)
    with pytest.raises(CheckpointError) as raised:
        convert_weights(weights, to='model', source='model.pth')
    assert str(raised.value) == f'model.pth: {key} must have shape {wanted}, got {list(shape)}'
