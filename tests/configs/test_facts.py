"""The configs say what the published experiments did."""

import ast
import functools

import pytest
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn, optim

FIRST_CHANNELS = {'mini': 64, 'tiny': 64, 'small': 96, 'base': 128}


def test_every_experiment_has_a_config(leaves, facts):
    assert sorted(leaves) == sorted(facts)


def test_leaf_files_are_short(leaves):
    lengths = {name: len(path.read_text().splitlines()) for name, path in leaves.items()}
    assert {name: length for name, length in lengths.items() if length > 15} == {}


def test_leaf_files_name_the_published_weights(leaves, facts):
    for name, path in leaves.items():
        assert f'# {facts[name]["checkpoint"]}\n' in path.read_text()


def test_backbone(experiment):
    config, facts = experiment
    backbone = config.model.backbone
    assert backbone.type == 'NAT'
    assert FIRST_CHANNELS[backbone.arch] == facts['embed_dim']
    assert backbone.drop_path_rate == facts['drop_path_rate']
    assert backbone.get('layer_scale') == facts['layer_scale']
    assert list(backbone.out_indices) == facts['out_indices']
    assert backbone.init_cfg == {'type': 'Pretrained', 'checkpoint': facts['pretrained']}
    assert config.load_from is None


def test_optimizer(experiment):
    config, facts = experiment
    wrapper = config.optim_wrapper
    assert (wrapper.type == 'AutocastOptimWrapper') == facts['amp']
    assert wrapper.get('clip_grad') == facts['grad_clip']
    assert wrapper.optimizer == {
        'type': 'AdamW',
        'lr': facts['lr'],
        'betas': tuple(facts['betas']),
        'weight_decay': facts['weight_decay'],
    }
    assert wrapper.paramwise_cfg == {
        'custom_keys': {name: {'decay_mult': 0.0} for name in facts['no_weight_decay']}
    }


def test_batch_of_16_images(experiment):
    config, _ = experiment
    assert config.auto_scale_lr == {'enable': False, 'base_batch_size': 16}
    assert config.train_dataloader.batch_size == 2


def test_detection_schedule(detection_experiment):
    config, facts = detection_experiment
    assert config.train_cfg.type == 'EpochBasedTrainLoop'
    assert config.train_cfg.max_epochs == facts['max_epochs']
    rates = learning_rates(repr_schedule(config), iterations=600, epochs=facts['max_epochs'])
    check_warmup(rates[:600], facts)
    per_epoch = rates[600:]
    first, second = facts['step']
    assert per_epoch[:first] == pytest.approx([facts['lr']] * first)
    assert per_epoch[first:second] == pytest.approx([facts['lr'] / 10] * (second - first))
    assert per_epoch[second:] == pytest.approx([facts['lr'] / 100] * (36 - second))


def test_segmentation_schedule(segmentation_experiment):
    config, facts = segmentation_experiment
    assert config.train_cfg.type == 'IterBasedTrainLoop'
    last = config.train_cfg.max_iters
    assert last == facts['max_iters']
    rates = learning_rates(repr_schedule(config), iterations=3001, epochs=0)
    check_warmup(rates, facts)
    assert config.param_scheduler[-1] == {
        'type': 'PolyLR',
        'power': facts['power'],
        'eta_min': facts['min_lr'],
        'begin': facts['warmup_iters'],
        'end': last,
        'by_epoch': False,
    }
    left = (last - 3000) / (last - facts['warmup_iters'])
    assert rates[3000] == pytest.approx(facts['lr'] * left ** facts['power'], rel=1e-4)


def test_segmentation_crop_and_test_mode(segmentation_experiment):
    config, facts = segmentation_experiment
    size = tuple(facts['crop_size'])
    assert config.model.data_preprocessor.size == size
    crops = [step for step in config.train_pipeline if step.type == 'RandomCrop']
    assert [crop.crop_size for crop in crops] == [size]
    assert config.model.test_cfg == facts['test_mode']


def check_warmup(rates, facts):
    """mmengine reaches the full rate one step before the given end."""
    warmup = facts['warmup_iters']
    assert rates[0] == pytest.approx(facts['lr'] * facts['warmup_ratio'])
    assert rates[warmup // 2] == pytest.approx(facts['lr'] / 2, rel=0.01)
    assert rates[warmup] == pytest.approx(facts['lr'], rel=0.001)


def repr_schedule(config):
    """Learning rate and schedulers as text, which a cache can compare."""
    schedulers = [dict(scheduler) for scheduler in config.param_scheduler]
    return repr((config.optim_wrapper.optimizer.lr, schedulers))


@functools.cache
def learning_rates(schedule, *, iterations, epochs):
    """The rate at each iteration, then at each epoch, with the config's schedulers."""
    rate, schedulers = ast.literal_eval(schedule)
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=rate)
    schedulers = [
        PARAM_SCHEDULERS.build(scheduler, default_args={'optimizer': optimizer})
        for scheduler in schedulers
    ]
    rates = []
    for by_epoch, count in ((False, iterations), (True, epochs)):
        for _ in range(count):
            rates.append(optimizer.param_groups[0]['lr'])
            optimizer.step()
            for scheduler in schedulers:
                if scheduler.by_epoch == by_epoch:
                    scheduler.step()
    return rates
