"""Tests that classification configs train as published: schedules, regularization, augmentation."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS
from torch import nn, optim

pytest.importorskip('mmpretrain', reason='classification needs mmpretrain')

ITERATIONS = 5  # per epoch in these tests


def learning_rates(config):
    """Returns the learning rate of each iteration of a training run with short epochs."""
    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=config.optim_wrapper.optimizer.lr)
    schedulers = []
    for scheduler in config.param_scheduler:
        arguments = dict(scheduler, optimizer=optimizer)
        assert arguments.pop('convert_to_iter_based')
        kind = PARAM_SCHEDULERS.get(arguments.pop('type'))
        schedulers.append(kind.build_iter_from_epoch(epoch_length=ITERATIONS, **arguments))
    rates = []
    for _ in range(config.train_cfg.max_epochs * ITERATIONS):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return torch.tensor(rates).view(-1, ITERATIONS)


def test_schedule_from_scratch(load):
    rates = learning_rates(load('nat_mini_in1k_224'))
    assert len(rates) == 310
    assert rates[0, 0] == pytest.approx(1e-6)
    assert rates[10, 0] == pytest.approx(5e-4, rel=0.02)
    assert rates[20, 0] == pytest.approx(1e-3, rel=0.001)
    assert rates[160, 0] == pytest.approx((1e-3 + 5e-6) / 2, rel=0.01)
    assert rates[299, -1] == pytest.approx(5e-6, rel=0.01)
    assert rates[300:].unique().tolist() == pytest.approx([5e-6], rel=0.001)


def test_schedule_of_fine_tuning(load):
    rates = learning_rates(load('dinat_large_in22k_in1k_384'))
    assert len(rates) == 30
    assert rates[0, 0] == pytest.approx(5e-5)
    assert rates[15, 0] == pytest.approx((5e-5 + 5e-6) / 2, rel=0.01)
    assert rates[29, -1] == pytest.approx(5e-6, rel=0.1)


def test_batches(classifier):
    config, facts = classifier
    scratch = facts['pretraining'] is None
    assert config.train_dataloader.batch_size == (128 if scratch else 64)
    assert config.auto_scale_lr == {'enable': False, 'base_batch_size': 1024 if scratch else 512}
    assert config.optim_wrapper.type == ('AutocastOptimWrapper' if scratch else 'OptimWrapper')
    assert config.optim_wrapper.clip_grad == {'max_norm': 5.0}


def test_pictures_are_mixed_from_scratch_only(classifier):
    config, facts = classifier
    augments = config.model.get('train_cfg', {}).get('augments', [])
    mixing = [(augment.type, augment.alpha) for augment in augments]
    assert mixing == ([] if facts['pretraining'] else [('Mixup', 0.8), ('CutMix', 1.0)])
    assert config.model.head.loss.label_smooth_val == 0.1


def test_augmentation(classifier):
    config, _ = classifier
    steps = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    assert steps['RandomFlip'].prob == 0.5
    augment = steps['RandAugment']
    assert (augment.num_policies, augment.magnitude_level, augment.magnitude_std) == (2, 9, 0.5)
    assert (steps['RandomErasing'].erase_prob, steps['RandomErasing'].mode) == (0.25, 'rand')


@pytest.mark.parametrize(
    ('name', 'weight_decay'),
    [
        ('nat_base_in1k_224', 0.05),
        ('dinat_large_in22k_in1k_224', 1e-4),
        ('dinat_large_in22k_in1k_384', 1e-10),
        ('dinat_large_in22k_in1k_384_11x11', 1e-10),
        ('dinat_s_large_in22k_in1k_384', 1e-5),
    ],
)
def test_weight_decay_spares_vectors_and_rpb(load, name, weight_decay):
    config = load(name)
    with torch.device('meta'):
        model = MODELS.build(config.model)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    names = {parameter: name for name, parameter in model.named_parameters()}
    decay = {
        names[group['params'][0]]: group['weight_decay'] for group in wrapper.optimizer.param_groups
    }
    assert decay.keys() == set(names.values())
    spared = {
        name for parameter, name in names.items() if parameter.ndim == 1 or name.endswith('.rpb')
    }
    assert {name for name, value in decay.items() if value == 0} == spared
    assert {value for value in decay.values() if value} == {weight_decay}
