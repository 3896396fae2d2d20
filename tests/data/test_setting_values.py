"""Tests that values which a run would fail on are reported before it."""

import pytest
from mmengine.config import Config
from mmengine.hooks import EMAHook

from nat_mm.data.paths import find_path_problems
from nat_mm.data.setting_values import find_wrong_settings
from nat_mm.data.sources import find_sources
from nat_mm.errors import UserError

COCO = {'type': 'CocoMetric', 'metric': ['bbox', 'foo']}
IOU = {'type': 'mmseg.IoUMetric', 'iou_metrics': ['mFoo']}


def problems(**settings):
    config = Config({'default_scope': 'mmdet', **settings})
    return [each.text for each in find_wrong_settings(config)]


def optimizing(**settings):
    return {'optim_wrapper': {'optimizer': {'type': 'AdamW', 'lr': 1e-4}, **settings}}


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        (optimizing(optimizer={'type': 'Adamw'}), "optim_wrapper.optimizer.type is 'Adamw', which"),
        (
            optimizing(optimizer={'type': 'AdamW', 'lr': 'abc'}),
            "optim_wrapper.optimizer.lr must be a number, got 'abc'",
        ),
        (
            optimizing(paramwise_cfg={'custom_keys': {'rpb': 0}}),
            'optim_wrapper.paramwise_cfg.custom_keys.rpb must be a dict such as dict(decay_mult=',
        ),
        (
            optimizing(optimizer={'type': 'AdamW', 'weight_decay': None, 'lr': '1e-4'}),
            "optim_wrapper.optimizer.lr must be a number, got '1e-4'",
        ),
        (
            optimizing(paramwise_cfg={'norm_decay_mult': '0', 'bypass_duplicate': True}),
            "optim_wrapper.paramwise_cfg.norm_decay_mult must be a number, got '0'",
        ),
        (
            optimizing(paramwise_cfg={'custom_keys': {'rpb': {'lr_mult': None}}}),
            'optim_wrapper.paramwise_cfg.custom_keys.rpb.lr_mult must be a number, got None',
        ),
        (
            optimizing(clip_grad={'max_norm': 'abc'}),
            "optim_wrapper.clip_grad.max_norm must be a number, got 'abc'",
        ),
        (optimizing(clip_grad=5), 'optim_wrapper.clip_grad must be a dict such as '),
        (optimizing(clip_grad={'max_nrm': 5}), 'optim_wrapper.clip_grad.max_nrm is not an arg'),
        (
            optimizing(accumulative_counts=0),
            'optim_wrapper.accumulative_counts must be a whole number of at least 1, got 0',
        ),
        ({'train_cfg': {'val_interval': 0}}, 'train_cfg.val_interval must be a whole number of'),
        (
            {'train_cfg': {'max_epochs': float('inf')}},
            'train_cfg.max_epochs must be a whole number of at least 1, got inf',
        ),
        (
            {'train_cfg': {'val_interval': float('nan')}},
            'train_cfg.val_interval must be a whole number of at least 1, got nan',
        ),
        ({'train_cfg': {'max_iters': 1.5}}, 'train_cfg.max_iters must be a whole number of at '),
        (
            {'param_scheduler': 5},
            'param_scheduler must be a list of dicts, each with a type, got 5',
        ),
        ({'param_scheduler': {'type': 'StepLr'}}, "param_scheduler.type is 'StepLr', which is not"),
        ({'param_scheduler': [{'type': 'StepLr'}]}, "param_scheduler.0.type is 'StepLr', which is"),
        ({'custom_hooks': 5}, 'custom_hooks must be a list of dicts, each with a type, got 5'),
        ({'custom_hooks': {'type': 'EMAHook'}}, 'custom_hooks must be a list of dicts'),
        ({'custom_hooks': ['EMAHook']}, "custom_hooks.0 must be a dict with a type, got 'EMAHook'"),
        ({'custom_hooks': [{'type': 'EmaHook'}]}, "custom_hooks.0.type is 'EmaHook', which is not"),
        ({'default_hooks': {'foo': 1}}, 'default_hooks.foo must be a dict with a type, got 1'),
        (
            {'default_hooks': {'checkpoint': {'type': 'CheckpointHook', 'interval': 'abc'}}},
            "default_hooks.checkpoint.interval must be a number, got 'abc'",
        ),
        ({'log_level': 'FOO'}, "log_level must be one of 'DEBUG', 'INFO', 'WARNING', 'ERROR', got"),
        ({'val_evaluator': COCO}, "val_evaluator.metric has 'foo', which CocoMetric does not know"),
        (
            {'val_evaluator': {**COCO, 'metric': 'bbox', 'proposal_nums': (300,)}},
            'val_evaluator.proposal_nums must have three numbers, such as (100, 300, 1000), or',
        ),
        ({'val_evaluator': [IOU]}, "val_evaluator.0.iou_metrics has 'mFoo', which IoUMetric does"),
    ],
)
def test_wrong_values(settings, text):
    (problem,) = problems(**settings)
    assert problem.startswith(text)


@pytest.mark.parametrize(
    'settings',
    [
        {},
        {**optimizing(clip_grad={'max_norm': 0.1, 'norm_type': 2}), 'param_scheduler': None},
        optimizing(clip_grad=None, accumulative_counts=4),
        optimizing(paramwise_cfg={'custom_keys': {'rpb': {'decay_mult': 0.0}}}),
        {'train_cfg': {'max_iters': 160000.0, 'val_interval': 16000}},
        {'train_cfg': {'max_epochs': 2, 'val_interval': float('inf')}},
        {'param_scheduler': {'generator': [{'type': 'StepLR'}]}},
        {'custom_hooks': [{'type': 'EMAHook'}, {'type': 'NumClassCheckHook'}]},
        {'custom_hooks': [{'type': EMAHook}, {'type': 'mmdet.SyncNormHook'}]},
        {'default_hooks': {'timer': None, 'visualization': {'type': 'DetVisualizationHook'}}},
        {'log_level': 10},
        {'val_evaluator': [{**COCO, 'metric': 'bbox'}, {**IOU, 'iou_metrics': ['mDice']}]},
        {'val_evaluator': {**COCO, 'metric': [], 'proposal_nums': [300], 'use_mp_eval': True}},
        {'val_evaluator': {**COCO, 'proposal_nums': [300], 'metric': 'proposal_fast'}},
        {'val_evaluator': {**COCO, 'metric': [], 'proposal_nums': (1, 10, 100)}},
    ],
    ids=str,
)
def test_right_values(settings):
    assert problems(**settings) == []


@pytest.mark.parametrize('evaluator', [5, 'CocoMetric', ['CocoMetric']], ids=str)
def test_evaluators_that_are_no_dicts(evaluator):
    config = Config({'val_evaluator': evaluator})
    (problem,) = find_path_problems(config, 'val')
    assert 'must be a dict with a type, got ' in problem.text


@pytest.mark.parametrize(
    ('dataset', 'text'),
    [
        (
            None,
            'train_dataloader.dataset must be a dict with a type, such as CocoDataset, got None',
        ),
        (
            {'type': 'CocoDataset', 'data_prefix': 'train/'},
            "train_dataloader.dataset.data_prefix must be a dict, got 'train/': write dict(img=",
        ),
    ],
    ids=['no dataset', 'prefix as text'],
)
def test_datasets_that_cannot_be_built(dataset, text):
    loader = {'batch_size': 2, 'dataset': dataset}
    config = Config({'default_scope': 'mmdet', 'train_dataloader': loader})
    with pytest.raises(UserError) as raised:
        find_sources(config, 'train')
    assert str(raised.value).startswith(text)
