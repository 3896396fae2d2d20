"""Tests that the configs match the published experiments."""

import ast
import dataclasses
import functools
import re

import pytest
from mmengine.registry import MODELS, PARAM_SCHEDULERS
from torch import nn, optim

from nat_mm.backbones.architecture import Architecture, resolve_architecture
from tests.model_zoo import image_size

METHODS = {
    ('MaskRCNN', 'FPN'): 'Mask R-CNN',
    ('CascadeRCNN', 'FPN'): 'Cascade Mask R-CNN',
    ('EncoderDecoder', 'UPerHead'): 'UPerNet',
}
PRECISIONS = {'AutocastOptimWrapper': True, 'OptimWrapper': False}


def test_every_experiment_has_a_config(leaves, facts):
    assert sorted(leaves) == sorted(facts)


def test_configs_lie_in_the_folder_of_task_and_family(leaves, facts):
    for name, path in leaves.items():
        task, family = facts[name]['task'], facts[name]['backbone'].lower()
        assert path.parts[-3:-1] == (task, family)


def test_config_says_what_was_published(experiment):
    config, facts = experiment
    assert describe(config) == {key: facts[key] for key in facts if key != 'name'}


def test_metafile_describes_the_config(experiment, model_zoo):
    config, facts = experiment
    metadata = model_zoo[facts['name']]['Metadata']
    arch = f'{facts["backbone"]}-{config.model.backbone.arch.title()}'
    assert metadata['Architecture'] == [arch, facts['method']]
    is_mixed = 'Mixed Precision' in metadata['Training Techniques']
    assert is_mixed == facts['amp']
    for key, length in (('Epochs', 'max_epochs'), ('Iterations', 'max_iters')):
        assert metadata.get(key) == config.train_cfg.get(length)


def test_weights_are_those_of_the_config(experiment, model_zoo):
    config, facts = experiment
    model = f'{facts["backbone"].lower()}_{config.model.backbone.arch}'
    method = re.sub('[ -]', '', facts['method']).lower()
    names = {f'{model}_{method}.pth', f'{method}_{model}.pth'}
    # The authors spell some with a d: cascadedmaskrcnn.
    weights = model_zoo[facts['name']]['Weights'].rpartition('/')[2]
    assert weights.replace('cascaded', 'cascade') in names


def test_batch_of_16_images(experiment):
    config, _ = experiment
    assert config.auto_scale_lr == {'enable': False, 'base_batch_size': 16}
    assert config.train_dataloader.batch_size == 2


def test_only_the_backbone_starts_from_a_checkpoint(experiment):
    config, _ = experiment
    assert config.load_from is None
    assert str(config.model).count("'checkpoint'") == 1
    assert config.model.backbone.init_cfg.type == 'Pretrained'


def test_detection_schedule(detection_experiment):
    config, facts = detection_experiment
    epochs, rate = facts['max_epochs'], facts['optimizer']['lr']
    rates = learning_rates(repr_schedule(config), iterations=600, epochs=epochs)
    check_warmup(rates[:600], facts)
    per_epoch = rates[600:]
    first, second = facts['lr_config']['step']
    assert per_epoch[:first] == pytest.approx([rate] * first)
    assert per_epoch[first:second] == pytest.approx([rate / 10] * (second - first))
    assert per_epoch[second:] == pytest.approx([rate / 100] * (epochs - second))


def test_segmentation_schedule(segmentation_experiment):
    config, facts = segmentation_experiment
    schedule = facts['lr_config']
    rates = learning_rates(repr_schedule(config), iterations=3001, epochs=0)
    check_warmup(rates, facts)
    assert config.param_scheduler[-1].begin == schedule['warmup_iters']
    left = (facts['max_iters'] - 3000) / (facts['max_iters'] - schedule['warmup_iters'])
    expected = facts['optimizer']['lr'] * left ** schedule['power']
    assert rates[3000] == pytest.approx(expected, rel=1e-4)


def test_segmentation_scales_belong_to_the_crop(segmentation_experiment, model_zoo):
    config, facts = segmentation_experiment
    assert config.model.data_preprocessor.size == tuple(facts['crop_size'])
    height, width = image_size(model_zoo[facts['name']])
    assert height == facts['crop_size'][0]
    for dataloader, resize in [
        (config.train_dataloader, 'RandomResize'),
        (config.val_dataloader, 'Resize'),
        (config.test_dataloader, 'Resize'),
    ]:
        steps = [step for step in dataloader.dataset.pipeline if step.type == resize]
        assert [step.scale for step in steps] == [(width, height)]


def describe(config):
    """Describes a resolved config in the form of the published facts."""
    model, wrapper = config.model, config.optim_wrapper
    head = model.neck if 'neck' in model else model.decode_head
    description = {
        'task': {'mmdet': 'detection', 'mmseg': 'segmentation'}[config.default_scope],
        'method': METHODS[model.type, head.type],
        'backbone': model.backbone.type,
        'arch': describe_architecture(model.backbone),
        'pretrained': model.backbone.init_cfg.checkpoint,
        'amp': PRECISIONS[wrapper.type],
        'optimizer': as_json(wrapper.optimizer),
        'no_weight_decay': describe_weight_decay(wrapper.paramwise_cfg),
        'grad_clip': wrapper.get('clip_grad'),
    }
    warmup, decay = config.param_scheduler
    assert (warmup.type, warmup.by_epoch, warmup.begin) == ('LinearLR', False, 0)
    schedule = {
        'warmup': 'linear',
        'warmup_iters': warmup.end,
        'warmup_ratio': warmup.start_factor,
    }
    if description['task'] == 'detection':
        assert config.train_cfg.type == 'EpochBasedTrainLoop'
        assert (decay.type, decay.by_epoch, decay.gamma) == ('MultiStepLR', True, 0.1)
        length = {'max_epochs': config.train_cfg.max_epochs}
        schedule |= {'policy': 'step', 'step': decay.milestones}
    else:
        assert config.train_cfg.type == 'IterBasedTrainLoop'
        assert decay.type == 'PolyLR'
        length = {'max_iters': config.train_cfg.max_iters}
        schedule |= {
            'policy': 'poly',
            'power': decay.power,
            'min_lr': decay.eta_min,
            'by_epoch': decay.by_epoch,
        }
        description['crop_size'] = describe_crop(config.train_dataloader.dataset.pipeline)
        description['test_mode'] = as_json(model.test_cfg)
    assert decay.end == config.train_cfg[next(iter(length))]
    return description | length | {'lr_config': schedule}


def describe_architecture(backbone):
    """Returns values from the config, and those of the named architecture where it gives none."""
    fields = [field.name for field in dataclasses.fields(Architecture)]
    table = MODELS.get(backbone.type).architectures
    given = {field: backbone.get(field) for field in fields}
    architecture = dataclasses.asdict(resolve_architecture(backbone.arch, table, **given))
    architecture['qkv_bias'] = backbone.get('qkv_bias', True)
    architecture['out_indices'] = backbone.out_indices
    if backbone.type == 'DiNAT_s':
        architecture['patch_norm'] = backbone.get('patch_norm', True)
    known = {*architecture, 'type', 'arch', 'init_cfg'}
    assert backbone.keys() <= known, 'an argument that the facts do not have'
    return as_json({key: value for key, value in architecture.items() if value is not None})


def describe_weight_decay(paramwise):
    """Returns the names of parameters without weight decay."""
    assert paramwise.keys() == {'custom_keys'}
    assert all(keys == {'decay_mult': 0.0} for keys in paramwise.custom_keys.values())
    return sorted(paramwise.custom_keys)


def describe_crop(pipeline):
    (crop,) = [step for step in pipeline if step.type == 'RandomCrop']
    return list(crop.crop_size)


def as_json(value):
    """Converts a value to plain dicts and lists, as in JSON."""
    if isinstance(value, dict):
        return {key: as_json(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(part) for part in value]
    return value


def check_warmup(rates, facts):
    """Checks the warm-up; mmengine reaches the full rate one step before the given end."""
    warmup, rate = facts['lr_config']['warmup_iters'], facts['optimizer']['lr']
    assert rates[0] == pytest.approx(rate * facts['lr_config']['warmup_ratio'])
    assert rates[warmup // 2] == pytest.approx(rate / 2, rel=0.01)
    assert rates[warmup] == pytest.approx(rate, rel=0.001)


def repr_schedule(config):
    """Returns the learning rate and schedulers as text, which a cache can compare."""
    schedulers = [dict(scheduler) for scheduler in config.param_scheduler]
    return repr((config.optim_wrapper.optimizer.lr, schedulers))


@functools.cache
def learning_rates(schedule, *, iterations, epochs):
    """Returns the rate at each iteration, then at each epoch, with the config's schedulers."""
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
