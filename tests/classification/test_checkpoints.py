"""Tests the authors' classifiers with the configs, heads included; files are built from keys."""

import io
import math
import pickle
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from nat_mm.checkpoints import convert_weights

pytest.importorskip('mmpretrain', reason='classification needs mmpretrain')

ROOT = Path(__file__).parents[2]
DEPTHS = {
    'NAT': {'Mini': (3, 4, 6, 5), 'Tiny': (3, 4, 18, 5)},
    'DiNAT_s': {'Tiny': (2, 2, 6, 2), 'Small': (2, 2, 18, 2)},
}
EMBED_DIMS = {
    'NAT': {'Mini': 64, 'Tiny': 64, 'Small': 96, 'Base': 128, 'Large': 192},
    'DiNAT_s': {'Tiny': 96, 'Small': 96, 'Base': 128, 'Large': 192},
}
WITH_LAYER_SCALE = ('NAT-Small', 'NAT-Base', 'DiNAT-Base')


def published_shapes(name, *, kernel_size):
    """Returns the shapes in the authors' file of a classifier by key."""
    family, size = name.split('-')
    alike = 'DiNAT_s' if family == 'DiNAT_s' else 'NAT'
    wide = {'NAT': 'Tiny', 'DiNAT_s': 'Small'}[alike]
    return authors_shapes(
        family,
        embed_dim=EMBED_DIMS[alike][size],
        depths=DEPTHS[alike].get(size, DEPTHS[alike][wide]),
        mlp_ratio=4 if family == 'DiNAT_s' else 3 if size in ('Mini', 'Tiny') else 2,
        layer_scale=name in WITH_LAYER_SCALE,
        kernel_size=kernel_size,
        classes=1000,
    )


def authors_shapes(family, *, embed_dim, depths, mlp_ratio, layer_scale, kernel_size, classes):
    stages = 'layers' if family == 'DiNAT_s' else 'levels'
    shapes = {}

    def add(name, *shape, bias=None):
        shapes[f'{name}.weight'] = shape
        if bias != 'none':
            shapes[f'{name}.bias'] = shape[:1]

    if family == 'DiNAT_s':
        add('patch_embed.proj', embed_dim, 3, 4, 4)
    else:
        add('patch_embed.proj.0', embed_dim // 2, 3, 3, 3)
        add('patch_embed.proj.1', embed_dim, embed_dim // 2, 3, 3)
    add('patch_embed.norm', embed_dim)
    for stage, depth in enumerate(depths):
        channels = embed_dim * 2**stage
        for layer in range(depth):
            block = f'{stages}.{stage}.blocks.{layer}'
            add(f'{block}.norm1', channels)
            add(f'{block}.norm2', channels)
            add(f'{block}.attn.qkv', 3 * channels, channels)
            add(f'{block}.attn.proj', channels, channels)
            # All published models have 32 channels per head.
            shapes[f'{block}.attn.rpb'] = (channels // 32, *[2 * kernel_size - 1] * 2)
            add(f'{block}.mlp.fc1', mlp_ratio * channels, channels)
            add(f'{block}.mlp.fc2', channels, mlp_ratio * channels)
            if layer_scale:
                shapes[f'{block}.gamma1'] = shapes[f'{block}.gamma2'] = (channels,)
        if stage < 3 and family == 'DiNAT_s':
            add(f'{stages}.{stage}.downsample.norm', 4 * channels)
            add(f'{stages}.{stage}.downsample.reduction', 2 * channels, 4 * channels, bias='none')
        elif stage < 3:
            add(f'{stages}.{stage}.downsample.norm', 2 * channels)
            shape = (2 * channels, channels, 3, 3)
            add(f'{stages}.{stage}.downsample.reduction', *shape, bias='none')
    add('norm', 8 * embed_dim)
    add('head', classes, 8 * embed_dim)
    return shapes


def test_authors_file_fits_the_config(classifier, model):
    _, facts = classifier
    shapes = published_shapes(facts['name'], kernel_size=facts['kernel_size'])
    weights = {key: torch.empty(shape, device='meta') for key, shape in shapes.items()}
    converted = convert_weights(weights, to='model')
    assert {key: tuple(weight.shape) for key, weight in converted.items()} == {
        key: tuple(tensor.shape) for key, tensor in model.state_dict().items()
    }


SMALL = {'embed_dim': 32, 'depths': (1, 1, 1, 1), 'kernel_size': 3}
CONFIG = """
_base_ = '{root}/configs/classification/{folder}/{name}.py'
model = dict(
    backbone=dict(
        arch=None, embed_dim=32, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), kernel_size=3,
        {dilations} mlp_ratio=2.0, layer_scale={layer_scale}),
    head=dict(in_channels=256, num_classes=2))
data_preprocessor = dict(num_classes=2)
test_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False,
    dataset=dict(_delete_=True, type='CustomDataset', data_root='{data}', pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='ResizeEdge', scale=64),
        dict(type='CenterCrop', crop_size=64),
        dict(type='PackInputs')]))
test_evaluator = dict(topk=1)
"""
FAMILIES = {
    'NAT': ('nat', 'nat_small_in1k_224', 1e-5),
    'DiNAT': ('dinat', 'dinat_mini_in1k_224', False),
    'DiNAT_s': ('dinat_s', 'dinat_s_tiny_in1k_224', False),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def checkpoint(family, tmp_path):
    """A file in the authors' format with a small classifier of two classes."""
    generator = torch.Generator().manual_seed(0)
    scale = bool(FAMILIES[family][2])
    shapes = authors_shapes(family, **SMALL, mlp_ratio=2, layer_scale=scale, classes=2)
    weights = {
        key: torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
        for key, shape in shapes.items()
    }
    torch.save(weights, tmp_path / 'authors.pth')
    return tmp_path / 'authors.pth'


@pytest.fixture
def config(family, tmp_path):
    """A config for that classifier and two images of each class."""
    rng = np.random.default_rng(0)
    for name in ('one', 'other'):
        (tmp_path / 'data' / name).mkdir(parents=True)
        for index in range(2):
            picture = rng.integers(0, 255, (64, 64, 3), np.uint8)
            cv2.imwrite(str(tmp_path / 'data' / name / f'{name}{index}.png'), picture)
    folder, name, layer_scale = FAMILIES[family]
    values = {
        'root': ROOT,
        'folder': folder,
        'name': name,
        'layer_scale': layer_scale,
        'dilations': '' if family == 'NAT' else 'dilations=((2,), (1,), (1,), (1,)),',
        'data': tmp_path / 'data',
    }
    text = CONFIG
    for key, value in values.items():
        text = text.replace(f'{{{key}}}', str(value))
    (tmp_path / 'small.py').write_text(text)
    return tmp_path / 'small.py'


def scores_by_hand(config, checkpoint):
    """Computes the images' scores with the authors' last norm, mean over the image and head."""
    weights = torch.load(checkpoint)
    backbone = MODELS.build(config.model.backbone)
    backbone.load_state_dict(weights, strict=False)
    backbone.norm3 = torch.nn.Identity()
    backbone.eval()
    mean, std = (torch.tensor(config.data_preprocessor[name]) for name in ('mean', 'std'))
    scores = []
    for path in sorted(Path(config.test_dataloader.dataset.data_root).glob('*/*.png')):
        picture = torch.from_numpy(cv2.imread(str(path))[..., ::-1].copy())
        image = ((picture - mean) / std).permute(2, 0, 1)[None]
        with torch.no_grad():
            tokens = backbone(image)[-1].flatten(2).mT
        norm = torch.nn.functional.layer_norm(
            tokens, tokens.shape[-1:], weights['norm.weight'], weights['norm.bias']
        )
        logits = norm.mean(1) @ weights['head.weight'].T + weights['head.bias']
        scores.append(logits.softmax(1)[0])
    return torch.stack(scores)


def test_test_command_takes_the_authors_file(config, checkpoint, test, tmp_path):
    out = tmp_path / 'out.pkl'
    # Not capsys: mmengine's loggers would keep its stream, which is closed after this test.
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        test([str(config), str(checkpoint), '--out', str(out), '--work-dir', str(tmp_path)])
    # What mmengine and this command say about missing and unexpected keys.
    assert 'do not match exactly' not in printed.getvalue()
    assert 'warning: checkpoint' not in printed.getvalue()
    scores = torch.stack([sample['pred_score'] for sample in pickle.loads(out.read_bytes())])
    torch.testing.assert_close(scores, scores_by_hand(Config.fromfile(config), checkpoint))


def test_fine_tuning_starts_with_the_last_norm(config, checkpoint):
    """With another number of classes, everything but the head is loaded."""
    config = Config.fromfile(config)
    init_default_scope(config.default_scope)
    config.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint))
    config.model.head.num_classes = 7
    model = MODELS.build(config.model)
    model.init_weights()
    weights = torch.load(checkpoint)
    loaded = model.backbone.state_dict()
    assert torch.equal(loaded.pop('norm3.weight'), weights.pop('norm.weight'))
    assert torch.equal(loaded.pop('norm3.bias'), weights.pop('norm.bias'))
    assert weights.pop('head.weight').shape == (2, 256)
    del weights['head.bias']
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)
    assert model.head.fc.weight.std().item() == pytest.approx(0.02, rel=0.2)
