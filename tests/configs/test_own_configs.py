"""Tests that the configs in docs/config.md, on OpenMMLab's and our bases, train as described."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from nat_mm.checkpoints import read_checkpoint
from tests.configs.optimizers import find_norms, find_weight_decay
from tests.model_zoo import ROOT

PAGE = (ROOT / 'docs/config.md').read_text()
PRINTED = dict(
    re.findall(r'^```python title="(\w+\.py)"\n(.*?)^```', PAGE, re.MULTILINE | re.DOTALL)
)
SETTINGS = {'my_config.py': (1e-4, 0.05, 500), 'my_upernet.py': (6e-5, 0.01, 1500)}
"""Learning rate, weight decay and warm-up iterations."""

MINIATURE = dict(arch=None, embed_dim=32, depths=(1,) * 4, num_heads=(1, 2, 4, 8), init_cfg=None)
CHANNELS = [32, 64, 128, 256]
SMALLER = {
    'my_config.py': {
        'model': {
            'backbone': MINIATURE,
            'neck': {'in_channels': CHANNELS},
            'roi_head': {
                'bbox_head': {'num_classes': 2, 'fc_out_channels': 64},
                'mask_head': {'num_classes': 2},
            },
            'train_cfg': {'rcnn': {'sampler': {'num': 16}}},
        },
        'train_cfg': {'max_epochs': 1, 'val_interval': 2},
    },
    'my_upernet.py': {
        'model': {
            'data_preprocessor': {'size': (64, 64)},
            'backbone': MINIATURE,
            'decode_head': {'in_channels': CHANNELS, 'channels': 32},
            'auxiliary_head': {'in_channels': 128, 'channels': 16},
        },
        'train_cfg': {'max_iters': 1, 'val_interval': 2},
    },
}
SMALLER_SIZES = {(1333, 800): (128, 96), (2048, 512): (128, 96), (512, 512): (64, 64)}


@pytest.fixture(params=SETTINGS)
def name(request):
    """The title of each complete config on the page."""
    return request.param


@pytest.fixture
def config(name, tmp_path):
    path = tmp_path / name
    path.write_text(PRINTED[name])
    config = Config.fromfile(path)
    init_default_scope(config.default_scope)
    return config


def test_optimizer(config, name):
    learning_rate, weight_decay, warmup = SETTINGS[name]
    with torch.device('meta'):
        model = MODELS.build(config.model)
    decay = find_weight_decay(model, config)
    tables = {name for name in decay if name.endswith('.rpb')}
    assert len(tables) == sum(len(stage.blocks) for stage in model.backbone.stages)
    spared = {name for name, value in decay.items() if value == 0}
    assert spared == find_norms(model.backbone) | tables
    assert {value for value in decay.values() if value} == {weight_decay}
    assert config.optim_wrapper.optimizer.type == 'AdamW'
    assert config.optim_wrapper.optimizer.lr == learning_rate
    first, _ = config.param_scheduler
    assert (first.type, first.by_epoch, first.end) == ('LinearLR', False, warmup)
    assert config.auto_scale_lr == {'enable': False, 'base_batch_size': 16}


def test_one_iteration(config, name, small_data, train, tmp_path):
    config.merge_from_dict(SMALLER[name])
    loader = config.train_dataloader
    loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    loader.dataset.update(data_root=str(small_data), indices=2)
    if config.default_scope == 'mmdet':
        loader.dataset.ann_file = 'coco/training.json'
        loader.dataset.data_prefix = dict(img='images/training')
        loader.dataset.metainfo = dict(classes=('box', 'disc'))
    for step in loader.dataset.pipeline:
        for key in ('scale', 'crop_size'):
            if key in step:
                step[key] = SMALLER_SIZES[tuple(step[key])]
    config.val_dataloader = config.val_evaluator = config.val_cfg = None
    config.default_hooks.checkpoint.interval = 1
    path = tmp_path / 'smaller.py'
    config.dump(path)
    train([str(path), '--work-dir', str(tmp_path)])
    (checkpoint,) = tmp_path.glob('*_1.pth')
    checkpoint = read_checkpoint(str(checkpoint))
    assert checkpoint['message_hub']['runtime_info']['iter'] == 0
    states = checkpoint['optimizer']['state'].values()
    assert len(states) == len(checkpoint['optimizer']['param_groups'])
    assert all(torch.isfinite(state['exp_avg']).all() for state in states)


@pytest.mark.parametrize(
    ('name', 'length', 'steps'),
    [
        ('detection_1x', 12, [8, 11]),
        ('detection_3x', 36, [27, 33]),
        ('segmentation_80k', 80000, None),
        ('segmentation_160k', 160000, None),
    ],
)
def test_length_of_schedule(name, length, steps):
    config = Config.fromfile(ROOT / f'configs/_base_/schedules/{name}.py')
    assert config.train_cfg.get('max_epochs', config.train_cfg.get('max_iters')) == length
    _, decay = config.param_scheduler
    assert decay.end == length
    assert decay.get('milestones') == steps
