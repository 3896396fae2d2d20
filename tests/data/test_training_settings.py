"""Tests that contradictory settings are reported before training."""

from pathlib import Path

import pytest
from mmengine.config import Config

from nat_mm.data.training_settings import find_setting_problems

ROOT = Path(__file__).parents[2]
COCO = {'type': 'CocoMetric', 'metric': ['bbox', 'segm']}
IOU = {'type': 'mmseg.IoUMetric', 'iou_metrics': ['mIoU']}
RELEASED = 'https://shi-labs.com/projects/nat/checkpoints/CLS/nat_tiny.pth'
HUB = 'hf://shi-labs/nat-tiny-in1k-224'


def saving(best, *evaluators):
    return {
        'default_hooks': {'checkpoint': {'type': 'CheckpointHook', 'save_best': best}},
        'val_evaluator': evaluators[0] if len(evaluators) == 1 else list(evaluators),
    }


def padding(**options):
    preprocessor = {'type': 'SegDataPreProcessor', **options}
    return {'model': {'data_preprocessor': preprocessor}, 'train_dataloader': {'batch_size': 2}}


def inferring(settings, **options):
    model = {'type': 'EncoderDecoder', 'test_cfg': settings}
    return {'model': model, 'val_dataloader': {'batch_size': 1}, **options}


def scheduled(length, *schedulers, key='max_iters'):
    return {'train_cfg': {key: length}, 'param_scheduler': list(schedulers)}


def released(checkpoint=RELEASED, **preprocessor):
    backbone = {'type': 'NAT', 'init_cfg': {'type': 'Pretrained', 'checkpoint': checkpoint}}
    preprocessor = {'type': 'DetDataPreprocessor', **preprocessor}
    return {'model': {'backbone': backbone, 'data_preprocessor': preprocessor}}


RGB = [123.675, 116.28, 103.53]
STD = [58.395, 57.12, 57.375]
POLY = {'type': 'PolyLR', 'by_epoch': False, 'begin': 1500, 'end': 160000}
STEPS = {'type': 'MultiStepLR', 'milestones': [27, 33], 'end': 36}


def test_types_that_are_classes():
    """Pure Python configs name classes by themselves."""
    preprocessor = pytest.importorskip('mmseg.models').SegDataPreProcessor
    settings = padding()
    settings['model']['data_preprocessor']['type'] = preprocessor
    (finding,) = find_setting_problems(Config(settings))
    assert finding.text.startswith('model.data_preprocessor has neither')


@pytest.mark.parametrize(
    ('settings', 'text', 'is_error'),
    [
        (
            saving('bbox_mAP', COCO),
            "save_best is 'bbox_mAP', but val_evaluator gives 'coco/bbox_mAP', ",
            True,
        ),
        (saving(['mIoU', 'mDice'], IOU), "save_best is 'mDice', but val_evaluator gives 'a", True),
        (saving('coco/mIoU', COCO, IOU), "save_best is 'coco/mIoU', but ", True),
        (
            saving('coco/bbox_mAP', {**COCO, 'metric': 'proposal'}),
            "save_best is 'coco/bbox_mAP', but val_evaluator gives 'coco/AR@100', 'coco/AR@300', ",
            True,
        ),
        (
            saving('AR', {**COCO, 'metric': ['proposal_fast', 'bbox'], 'proposal_nums': [10]}),
            "gives 'coco/AR@10', 'coco/bbox_mAP', ",
            True,
        ),
        (inferring(None), "model.test_cfg is None: write dict(mode='whole'), or dict(mode=", True),
        (inferring({'mode': 'whol'}), "model.test_cfg is {'mode': 'whol'}: write ", True),
        (
            inferring({'mode': 'slide', 'stride': (32, 32)}),
            'model.test_cfg has no crop_size: write ',
            True,
        ),
        (padding(), 'model.data_preprocessor has neither, but mmseg needs one', True),
        (
            padding(size=(64, 96), size_divisor=32),
            'model.data_preprocessor has size=(64, 96) and size_divisor=32, but mmseg needs one',
            True,
        ),
        (released(), 'model.data_preprocessor.mean is None, but the released weights', False),
        (
            released(mean=RGB[::-1]),
            'mean is [103.53, 116.28, 123.675], but the released weights were trained on other '
            'colors: write mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb',
            False,
        ),
        (
            released(mean=RGB, std=[1.0, 1.0, 1.0], bgr_to_rgb=True),
            'data_preprocessor.std is [1.0, 1.0, 1.0], but the released weights',
            False,
        ),
        (
            released(mean=['1', '2', '3']),
            "data_preprocessor.mean is ['1', '2', '3'], but the released weights",
            False,
        ),
        (
            released(mean=RGB, std=STD),
            'data_preprocessor.bgr_to_rgb is None, but the released weights',
            False,
        ),
        (
            released(HUB, bgr_to_rgb=True, std=STD),
            'data_preprocessor.mean is None, but the released weights',
            False,
        ),
        (
            {'load_from': RELEASED, 'data_preprocessor': {'mean': RGB, 'std': STD}},
            'data_preprocessor.bgr_to_rgb is None, but the released weights',
            False,
        ),
        (
            scheduled(4000, POLY),
            'param_scheduler.0 (PolyLR) ends at iteration 160000, but train_cfg.max_iters is 4000',
            False,
        ),
        (
            scheduled(12, STEPS, key='max_epochs'),
            '(MultiStepLR) has its first milestone at epoch 27, but train_cfg.max_epochs is 12',
            False,
        ),
    ],
)
def test_contradictions_are_named(settings, text, is_error):
    (finding,) = find_setting_problems(Config(settings))
    assert text in finding.text
    assert finding.is_error == is_error


@pytest.mark.parametrize(
    'settings',
    [
        {},
        saving('coco/segm_mAP_50', COCO),
        saving('auto', COCO),
        saving('coco/AR@1000', {**COCO, 'metric': ['bbox', 'proposal_fast']}),
        inferring({}),
        inferring({'mode': 'slide', 'crop_size': (64, 64), 'stride': (42, 42)}),
        inferring(None, val_dataloader=None),
        saving('mIoU', COCO, IOU),
        saving('own/accuracy', COCO, {'type': 'MyMetric'}),
        saving('mine/bbox_mAP', {**COCO, 'prefix': 'mine'}),
        padding(size=(64, 96)),
        padding(size_divisor=32),
        scheduled(160000, POLY),
        scheduled(160001, POLY),
        scheduled(36, STEPS, key='max_epochs'),
        saving('mine/score', COCO, object()),  # an evaluator that the config has built
        scheduled(36, POLY, key='max_epochs'),
        scheduled(1000, POLY),
        released(mean=RGB, std=STD, bgr_to_rgb=True),
        released(mean=[0.5] * 4, std=[0.2] * 4),
        released('local.pth', mean=[0.0] * 3),
    ],
)
def test_what_agrees_passes(settings):
    assert list(find_setting_problems(Config(settings))) == []


@pytest.mark.parametrize(
    'path',
    ['demo/mask_rcnn_nat_demo.py', 'demo/upernet_nat_demo.py']
    + ['detection/nat/mask_rcnn_nat_mini_3x_coco.py']
    + ['segmentation/nat/upernet_nat_mini_512x512_160k_ade20k.py']
    + ['classification/nat/nat_mini_in1k_224.py'],
)
def test_own_configs_pass(path):
    assert list(find_setting_problems(Config.fromfile(ROOT / 'configs' / path))) == []
