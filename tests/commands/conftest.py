"""Small experiments derived from the shipped configs, and fixtures that run commands on them."""

import os
from pathlib import Path

import pytest

from tests.loading import Run, forget_visualizers
from tests.processes import write_stubs

ROOT = Path(__file__).parents[2]

DETECTION = """
_base_ = '{root}/configs/detection/nat/mask_rcnn_nat_mini_3x_coco.py'
model = dict(
    backbone=dict(
        arch=None, embed_dim=32, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), kernel_size=3,
        init_cfg=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32),
        bbox_head=dict(in_channels=32, fc_out_channels=64, num_classes=2),
        mask_roi_extractor=dict(out_channels=32),
        mask_head=dict(num_convs=1, in_channels=32, conv_out_channels=32, num_classes=2)),
    train_cfg=dict(rpn_proposal=dict(max_per_img=50), rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(max_per_img=50), rcnn=dict(score_thr=0.0, max_per_img=5)))
resize = dict(type='Resize', scale=(128, 96), keep_ratio=True)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    resize,
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    resize,
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
train_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(
        data_root='{data}', ann_file='coco/training.json', data_prefix=dict(img='images/training'),
        metainfo=dict(classes=('box', 'disc')), pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(
        data_root='{data}', ann_file='coco/validation.json',
        data_prefix=dict(img='images/validation'), metainfo=dict(classes=('box', 'disc')),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{data}/coco/validation.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=2, val_interval=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=2, milestones=[1], gamma=0.1)]
optim_wrapper = dict(type='OptimWrapper')
default_hooks = dict(logger=dict(interval=1))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale=scale, keep_ratio=True) for scale in ((128, 96), (160, 120))],
        [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
        [dict(type='LoadAnnotations', with_bbox=True)],
        [dict(type='PackDetInputs',
              meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip',
                         'flip_direction'))]])]
randomness = dict(seed=0)
"""

SEGMENTATION = """
_base_ = '{root}/configs/segmentation/nat/upernet_nat_mini_512x512_160k_ade20k.py'
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(
        arch=None, embed_dim=32, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), kernel_size=3,
        init_cfg=None),
    decode_head=dict(in_channels=[32, 64, 128, 256], channels=32, num_classes=3),
    auxiliary_head=dict(in_channels=128, channels=16, num_classes=3))
metainfo = dict(
    classes=('background', 'box', 'disc'), palette=[[0, 0, 0], [255, 0, 0], [0, 0, 255]])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='RandomCrop', crop_size=(64, 64)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs')]
train_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(
        _delete_=True, type='BaseSegDataset', data_root='{data}', metainfo=metainfo,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        reduce_zero_label=True, pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(
        _delete_=True, type='BaseSegDataset', data_root='{data}', metainfo=metainfo,
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
        reduce_zero_label=True, pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(type='IterBasedTrainLoop', max_iters=6, val_interval=6)
param_scheduler = [dict(type='PolyLR', power=1.0, begin=0, end=6, by_epoch=False)]
optim_wrapper = dict(type='OptimWrapper')
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=3))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale_factor=factor, keep_ratio=True) for factor in (0.75, 1.25)],
        [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
        [dict(type='LoadAnnotations')],
        [dict(type='PackSegInputs')]])]
randomness = dict(seed=0)
"""


@pytest.fixture(scope='session')
def configs(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Config files of a small Mask R-CNN and a small UPerNet, by task."""
    return write_configs(tmp_path_factory.mktemp('configs'), small_data)


def write_configs(folder: Path, data: Path) -> dict[str, Path]:
    """Writes the config files of `configs` into a folder."""
    paths = {}
    for task, text in (('detection', DETECTION), ('segmentation', SEGMENTATION)):
        paths[task] = folder / f'small_{task}.py'
        paths[task].write_text(text.replace('{root}', str(ROOT)).replace('{data}', str(data)))
    return paths


@pytest.fixture(scope='session')
def trained(
    train: Run, configs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The last checkpoint of a finished training run, by task."""
    last = {'detection': 'epoch_2.pth', 'segmentation': 'iter_6.pth'}
    checkpoints = {}
    for task, name in last.items():
        work_dir = tmp_path_factory.mktemp(f'trained_{task}')
        forget_visualizers()
        arguments = [str(configs[task]), '--work-dir', str(work_dir)]
        if task == 'segmentation':
            # With a tenth of this rate, six steps change the loss no more than dropout does.
            arguments += ['--cfg-options', 'optim_wrapper.optimizer.lr=6e-4']
        train(arguments)
        checkpoints[task] = work_dir / name
    return checkpoints


@pytest.fixture(scope='session')
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment for processes, as if nat_mm were installed with its start-up file."""
    folder = tmp_path_factory.mktemp('site')
    write_stubs(folder)
    (folder / 'sitecustomize.py').write_text('import nat_mm_startup\nnat_mm_startup.start()\n')
    paths = [str(folder), str(ROOT), os.environ.get('PYTHONPATH', '')]
    own = {'PYTHONPATH': os.pathsep.join(filter(None, paths)), 'OMP_NUM_THREADS': '1'}
    return {**os.environ, **own}
