"""Tests the configs for fine-tuning on few images."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from nat_mm.checkpoints import read_checkpoint
from tests.model_zoo import ROOT

FOLDER = ROOT / 'configs/_base_/finetune'
MODELS_OF_CONFIGS = [
    f'{model}_nat_{size}'
    for model in ('mask_rcnn', 'faster_rcnn', 'upernet')
    for size in ('demo', 'mini')
]

BOXES = """
_base_ = '{base}'
load_from = None
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(
    data_root='{data}', ann_file='{annotations}/training.json',
    data_prefix=dict(img='images/training')))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(
    data_root='{data}', ann_file='{annotations}/validation.json',
    data_prefix=dict(img='images/validation')))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{annotations}/validation.json')
test_evaluator = val_evaluator
train_cfg = dict(max_iters=1, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1))
"""


@pytest.mark.parametrize('name', MODELS_OF_CONFIGS)
def test_model_is_built(name):
    config = Config.fromfile(FOLDER / f'{name}.py')
    with torch.device('meta'), DefaultScope.overwrite_default_scope(config.default_scope):
        model = MODELS.build(config.model)
    assert getattr(model, 'with_mask', False) == name.startswith('mask_rcnn')
    assert config.train_cfg.max_iters == config.param_scheduler[-1].end == 900
    assert config.train_dataloader.batch_size == config.auto_scale_lr.base_batch_size == 2
    assert config.optim_wrapper.type == 'OptimWrapper'
    assert bool(config.load_from) == name.endswith('mini')


def test_boxes_without_masks_are_trained(train, small_data, tmp_path):
    for part in ('training', 'validation'):
        content = json.loads((small_data / f'coco/{part}.json').read_text())
        for each in content['annotations']:
            del each['segmentation']
        (tmp_path / f'{part}.json').write_text(json.dumps(content))
    path = tmp_path / 'boxes.py'
    base = FOLDER / 'faster_rcnn_nat_demo.py'
    path.write_text(BOXES.format(base=base, data=small_data, annotations=tmp_path))
    train([str(path), '--work-dir', str(tmp_path / 'run')])
    meta = read_checkpoint(str(tmp_path / 'run/iter_1.pth'))['meta']
    assert meta['dataset_meta']['classes'] == ('box', 'disc')
    (log,) = tmp_path.glob('run/*/vis_data/scalars.json')
    metrics = json.loads(log.read_text().splitlines()[-1])
    assert 'coco/bbox_mAP' in metrics
    assert 'coco/segm_mAP' not in metrics
