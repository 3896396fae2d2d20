"""The configs say what was published: arXiv 2209.15001, its model zoo and its configs."""

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

from tests.mask2former.small import CONFIGS, SHIPPED, shipped_config

QUERIES = {'semantic': 100, 'instance': 200, 'panoptic': 200}
CLASSES = {'semantic': 150, 'instance': 80, 'panoptic': 133}
PARAMETERS = 220e6
DILATIONS = [
    [1, 14, 1],
    [1, 4, 1, 7],
    [1, 2, 1, 3, 1, 2, 1, 3, 1, 2, 1, 3, 1, 2, 1, 3, 1, 3],
    [1, 1, 1, 1, 1],
]
ON_COCO = pytest.mark.parametrize('task', ['instance', 'panoptic'])


def test_every_config_is_tested():
    files = {str(path.relative_to(CONFIGS)) for path in CONFIGS.glob('*/mask2former/*.py')}
    assert files == set(SHIPPED.values())


def test_backbone(built):
    _, config, model = built
    assert type(model.backbone).__name__ == 'DiNAT'
    stages = model.backbone.levels
    dilations = [[block.attn.dilation for block in stage.blocks] for stage in stages]
    assert dilations == DILATIONS
    for stage, channels in zip(stages, (192, 384, 768, 1536), strict=True):
        for block in stage.blocks:
            assert block.attn.rpb.shape == (channels // 32, 21, 21)
            assert block.mlp.fc1.weight.shape == (2 * channels, channels)
            assert getattr(block, 'gamma1', None) is None
    assert config.model.backbone.drop_path_rate == 0.3
    assert config.model.backbone.init_cfg.checkpoint.endswith('in22k_224_11x11interp.pth')


def test_number_of_parameters(built):
    _, _, model = built
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(
        PARAMETERS, abs=0.5e6
    )


def test_heads(built):
    task, _, model = built
    head = model.decode_head if task == 'semantic' else model.panoptic_head
    assert head.num_queries == QUERIES[task]
    assert head.cls_embed.out_features == CLASSES[task] + 1
    assert len(head.pixel_decoder.encoder.layers) == 6
    assert len(head.transformer_decoder.layers) == 9


def test_optimizer(built):
    """Each parameter is a group of its own; its rate and decay follow from what it is."""
    _, config, model = built
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    assert type(wrapper).__name__ == 'OptimWrapper'  # fp32
    assert type(wrapper.optimizer).__name__ == 'AdamW'
    assert config.optim_wrapper.clip_grad == dict(max_norm=0.01, norm_type=2)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = {names[group['params'][0]]: group for group in wrapper.optimizer.param_groups}
    assert groups.keys() == set(names.values())
    norms = {
        f'{name}.{weight}'
        for name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm | nn.GroupNorm)
        for weight in ('weight', 'bias')
    }
    without_decay = ('rpb', 'query_embed.weight', 'query_feat.weight', 'level_embed.weight')
    for name, group in groups.items():
        assert group['lr'] == pytest.approx(1e-5 if name.startswith('backbone.') else 1e-4), name
        spared = name in norms or name.endswith(without_decay)
        assert group['weight_decay'] == (0.0 if spared else 0.05), name
    # 30 layers, 3 downsamplers, 4 outputs and the tokenizer have norms.
    assert sum(name.startswith('backbone.') for name in norms) == 2 * (2 * 30 + 3 + 4 + 1)
    assert sum(name.endswith('.rpb') for name in groups) == 30


@pytest.mark.parametrize('task', SHIPPED)
def test_batch_of_16_images(task):
    config = shipped_config(task)
    assert config.auto_scale_lr.base_batch_size == 16
    assert config.train_dataloader.batch_size == 2


@ON_COCO
def test_schedule_of_100_epochs(task):
    config = shipped_config(task)
    last = 737500
    assert last * 16 / 118287 == pytest.approx(100, abs=0.3)  # images with annotations
    assert config.train_cfg.max_iters == last
    assert config.train_cfg.dynamic_intervals[-1] == (735001, last)
    schedule = config.param_scheduler
    assert (schedule.type, schedule.by_epoch, schedule.gamma) == ('MultiStepLR', False, 0.1)
    assert (schedule.end, list(schedule.milestones)) == (last, [655556, 710184])


@ON_COCO
def test_large_scale_jittering(task):
    config = shipped_config(task)
    steps = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    assert steps['RandomResize'].scale == steps['RandomCrop'].crop_size == (1024, 1024)
    assert steps['RandomResize'].ratio_range == (0.1, 2.0)
    for part in ('val', 'test'):
        resize = config[f'{part}_dataloader'].dataset.pipeline[1]
        assert (resize.type, resize.scale) == ('Resize', (1333, 800))


def test_instance_config_needs_no_panoptic_data():
    config = shipped_config('instance')
    for part in ('train', 'val', 'test'):
        dataset = config[f'{part}_dataloader'].dataset
        assert dataset.type == 'CocoDataset'
        assert list(dataset.data_prefix) == ['img']


def test_semantic_schedule_and_sizes():
    config = shipped_config('semantic')
    assert config.train_cfg.max_iters == 160000
    (schedule,) = config.param_scheduler
    assert (schedule.type, schedule.power, schedule.end) == ('PolyLR', 0.9, 160000)
    assert config.model.data_preprocessor.size == (640, 640)
    steps = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    assert steps['RandomCrop'] == {'type': 'RandomCrop', 'crop_size': (640, 640)}
    assert steps['RandomChoiceResize'].scales == list(range(320, 1281, 64))
    for part in ('val', 'test'):
        resize = config[f'{part}_dataloader'].dataset.pipeline[1]
        assert (resize.type, resize.scale) == ('Resize', (2560, 640))
    scales = [resize.scale for resize in config.tta_pipeline[1].transforms[0]]
    assert scales == [(4480, short_side) for short_side in range(320, 1121, 160)]
