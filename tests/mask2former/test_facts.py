"""Tests the configs against what was published: arXiv 2209.15001, its model zoo and its configs."""

import json

import pytest
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, init_default_scope
from torch import nn

from tests.mask2former.small import CONFIGS, PUBLISHED, RUN, SHIPPED, shipped_config
from tests.model_zoo import ROOT

CONTENT = json.loads((ROOT / 'tests/data/published_experiments.json').read_text())
FACTS = {
    task: facts
    for task, name in PUBLISHED.items()
    for facts in CONTENT['mask2former']
    if facts['name'] == f'mask2former_dinat_large_{name}'
}
# The numbers of detectron2's datasets, which the authors trained with.
CLASSES = {
    ('ade20k', 'semantic'): 150,
    ('ade20k', 'instance'): 100,
    ('ade20k', 'panoptic'): 150,
    ('cityscapes', 'semantic'): 19,
    ('cityscapes', 'instance'): 8,
    ('cityscapes', 'panoptic'): 19,
    ('coco', 'instance'): 80,
    ('coco', 'panoptic'): 133,
}
ON_COCO = pytest.mark.parametrize('task', ['instance', 'panoptic'])
IN_CROPS = pytest.mark.parametrize(
    'task', [task for task in SHIPPED if task not in ('instance', 'panoptic')]
)


def test_every_config_is_tested():
    files = {str(path.relative_to(CONFIGS)) for path in CONFIGS.glob('*/mask2former/*.py')}
    assert files == set(SHIPPED.values())
    assert FACTS.keys() == SHIPPED.keys()
    assert len(CONTENT['mask2former']) == len(FACTS)


def test_backbone(built):
    _, config, model = built
    arch = CONTENT['mask2former_arch']
    assert type(model.backbone).__name__ == 'DiNAT'
    stages = model.backbone.levels
    dilations = [[block.attn.dilation for block in stage.blocks] for stage in stages]
    assert dilations == arch['dilations']
    assert [len(stage.blocks) for stage in stages] == arch['depths']
    for index, stage in enumerate(stages):
        channels = arch['embed_dim'] * 2**index
        for block in stage.blocks:
            assert block.attn.rpb.shape == (arch['num_heads'][index], 21, 21)
            assert block.attn.kernel_size == arch['kernel_size']
            assert block.mlp.fc1.weight.shape == (arch['mlp_ratio'] * channels, channels)
            assert getattr(block, 'gamma1', None) is None
    assert config.model.backbone.drop_path_rate == arch['drop_path_rate']
    assert config.model.backbone.init_cfg.checkpoint.endswith('in22k_224_11x11interp.pth')


def test_number_of_parameters(built):
    task, _, model = built
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx(FACTS[task]['published']['params_M'], abs=0.5)


def test_heads(built):
    task, _, model = built
    facts = FACTS[task]
    head = model.decode_head if facts['task'] == 'semantic' else model.panoptic_head
    assert head.num_queries == facts['num_queries']
    assert head.cls_embed.out_features == CLASSES[facts['dataset'], facts['task']] + 1
    assert len(head.pixel_decoder.encoder.layers) == 6
    assert len(head.transformer_decoder.layers) == 9


@pytest.mark.parametrize('built', RUN, indirect=True)
def test_optimizer(built):
    """Each parameter has its own group; its kind determines its rate and weight decay."""
    task, config, model = built
    facts = FACTS[task]['optimizer']
    rates = facts['lr'] * facts['backbone_multiplier'], facts['lr']
    assert not FACTS[task]['amp']
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
        assert group['lr'] == pytest.approx(rates[not name.startswith('backbone.')]), name
        spared = name in norms or name.endswith(without_decay)
        assert group['weight_decay'] == (0.0 if spared else facts['weight_decay']), name
    # The 30 layers, 3 downsamplers, 4 outputs and the tokenizer have norms.
    assert sum(name.startswith('backbone.') for name in norms) == 2 * (2 * 30 + 3 + 4 + 1)
    assert sum(name.endswith('.rpb') for name in groups) == 30


@pytest.mark.parametrize('task', SHIPPED)
def test_batch_of_16_images(task):
    config = shipped_config(task)
    assert config.auto_scale_lr.base_batch_size == FACTS[task]['batch']
    assert config.train_dataloader.batch_size == 2


@ON_COCO
def test_schedule_of_100_epochs(task):
    config = shipped_config(task)
    last = FACTS[task]['max_iters']
    assert last * 16 / 118287 == pytest.approx(100, abs=0.3)  # images with annotations
    assert config.train_cfg.max_iters == last
    assert config.train_cfg.dynamic_intervals[-1] == (735001, last)
    schedule = config.param_scheduler
    assert (schedule.type, schedule.by_epoch, schedule.gamma) == ('MultiStepLR', False, 0.1)
    assert (schedule.end, list(schedule.milestones)) == (last, FACTS[task]['steps'])


@ON_COCO
def test_large_scale_jittering(task):
    config, facts = shipped_config(task), FACTS[task]['input']
    steps = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    assert (
        steps['RandomResize'].scale == steps['RandomCrop'].crop_size == (facts['image_size'],) * 2
    )
    assert list(steps['RandomResize'].ratio_range) == facts['scale']
    for part in ('val', 'test'):
        resize = config[f'{part}_dataloader'].dataset.pipeline[1]
        assert (resize.type, resize.scale) == ('Resize', (1333, 800))


def test_instance_config_needs_no_panoptic_data():
    config = shipped_config('instance')
    for part in ('train', 'val', 'test'):
        dataset = config[f'{part}_dataloader'].dataset
        assert dataset.type == 'CocoDataset'
        assert list(dataset.data_prefix) == ['img']


@IN_CROPS
def test_schedule_of_crops(task):
    config, last = shipped_config(task), FACTS[task]['max_iters']
    assert config.train_cfg.max_iters == last
    (schedule,) = config.param_scheduler if task.endswith('semantic') else [config.param_scheduler]
    assert (schedule.type, schedule.power, schedule.end) == ('PolyLR', 0.9, last)
    assert (schedule.by_epoch, schedule.eta_min) == (False, 0)


@IN_CROPS
def test_sizes_of_crops(task):
    config, facts = shipped_config(task), FACTS[task]['input']
    steps = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    resize, crop = steps['RandomChoiceResize'], steps['RandomCrop']
    if task.endswith('semantic'):
        assert config.model.data_preprocessor.size == tuple(facts['crop'])
        assert crop == {'type': 'RandomCrop', 'crop_size': tuple(facts['crop'])}
        assert (resize.resize_type, resize.max_size) == ('ResizeShortestEdge', facts['longest'])
        assert resize.scales == facts['short_sides']
    else:
        (padding,) = config.model.data_preprocessor.batch_augments
        assert padding.size == tuple(facts['crop'])
        # mmdet gives the size of crops as width and height.
        assert (crop.crop_type, crop.crop_size) == ('absolute', tuple(facts['crop'][::-1]))
        assert (resize.resize_type, resize.keep_ratio) == ('Resize', True)
        assert resize.scales == [(facts['longest'], short) for short in facts['short_sides']]
    assert {'PhotoMetricDistortion', 'RandomFlip'} <= steps.keys()
    for part in ('val', 'test'):
        resize = config[f'{part}_dataloader'].dataset.pipeline[1]
        assert (resize.type, resize.scale) == ('Resize', tuple(facts['test'][::-1]))


def test_scales_of_test_time_augmentation():
    scales = shipped_config('semantic').tta_pipeline[1].transforms[0]
    assert [each.scale for each in scales] == [(4480, short) for short in range(320, 1121, 160)]
    ratios = shipped_config('cityscapes_semantic').tta_pipeline[1].transforms[0]
    assert [each.scale_factor * 1024 for each in ratios] == list(range(512, 1793, 256))


@pytest.mark.parametrize(
    ('task', 'images', 'annotations', 'crop'),
    [
        ('ade20k_instance', 'images', 'coco', (640, 640)),
        ('ade20k_panoptic', 'images', 'panoptic', (640, 640)),
        ('cityscapes_instance', 'images', 'coco', (512, 1024)),
    ],
    ids=lambda value: value if isinstance(value, str) and '_' in value else '',
)
def test_training_samples(data, task, images, annotations, crop):
    """Each step of the pipeline accepts the output of the steps before."""
    config = shipped_config(task)
    init_default_scope(config.default_scope)
    dataset = config.train_dataloader.dataset
    assert dataset.type in ('ADE20KInstanceDataset', 'ADE20KPanopticDataset', 'CityscapesDataset')
    names = ('box', 'disc', 'background')
    panoptic = annotations == 'panoptic'
    metainfo = dict(classes=names, thing_classes=names[:2], stuff_classes=names[2:])
    dataset.update(
        data_root=str(data),
        ann_file=f'{annotations}/training.json',
        metainfo=metainfo if panoptic else dict(classes=names[:2]),
    )
    dataset.data_prefix.img = f'{images}/training'
    if panoptic:
        dataset.data_prefix.seg = 'panoptic/training'
    sample = DATASETS.build(dataset)[0]
    height, width = sample['inputs'].shape[1:]
    assert 320 <= height <= crop[0]
    assert 320 <= width <= crop[1]
    masks = sample['data_samples'].gt_instances.masks
    assert (masks.height, masks.width) == (height, width)
    assert panoptic == ('gt_sem_seg' in sample['data_samples'])
