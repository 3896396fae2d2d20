"""Tests that samples that fail to load during a run are reported in one line."""

import os
import pickle
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import MODELS, TRANSFORMS
from mmengine.runner import Runner
from mmpretrain.models import LinearClsHead
from mmseg.datasets import LoadAnnotations
from mmseg.models import UPerHead

from nat_mm.config.reading import load_config
from nat_mm.data.broken_samples import BrokenSampleError, loading_mistakes, name_broken_samples
from nat_mm.errors import UserError
from tests.commands.conftest import write_configs
from tests.conftest import write_small_data


@pytest.fixture
def data(tmp_path):
    """A separate folder with the small dataset, which tests can corrupt."""
    write_small_data(tmp_path)
    return tmp_path


@pytest.fixture
def configs(data):
    return write_configs(data, data)


def load_all(path, split='train', workers=0, deleted=None, **overrides):
    """Loads each sample of a split once, in order, after a file was deleted in the meantime."""
    config = load_config(path, overrides=overrides)
    settings = config[f'{split}_dataloader']
    settings.update(num_workers=workers, sampler=dict(type='DefaultSampler', shuffle=False))
    loader = Runner.build_dataloader(settings, seed=0)
    name_broken_samples(loader, config, split)
    if deleted:
        deleted.unlink()
    with loading_mistakes(config):
        return sum(len(batch['inputs']) for batch in loader)


def message_of(path, split='train', workers=0, deleted=None, **overrides):
    with pytest.raises(UserError) as raised:
        load_all(path, split, workers, deleted, **overrides)
    assert '\n' not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(('task', 'workers'), [('detection', 0), ('segmentation', 2)])
def test_image_that_was_deleted(task, workers, configs, data):
    image = data / 'images/training/03.jpg'
    message = message_of(configs[task], workers=workers, deleted=image)
    assert message == f'{image} does not exist'


def test_image_that_is_none(configs, data):
    image = data / 'images/training/03.jpg'
    image.write_text('no image')
    assert message_of(configs['detection']) == f'{image} is not an image'


def test_label_that_is_cut_off(configs, data):
    label = data / 'annotations/training/03.png'
    label.write_bytes(label.read_bytes()[:100])
    assert message_of(configs['segmentation']).startswith(f'{label} is a damaged image: ')


@pytest.mark.parametrize('split', ['train', 'val'])
def test_label_of_another_size(split, configs, data):
    folder = {'train': 'training', 'val': 'validation'}[split]
    label = data / f'annotations/{folder}/01.png'
    cv2.imwrite(str(label), np.ones((48, 60), np.uint8))
    image = data / f'images/{folder}/01.jpg'
    expected = f'the label {label} is 60 x 48 pixels, but its image {image} is 128 x 96'
    assert message_of(configs['segmentation'], split) == expected


def test_label_of_colors(configs, data):
    label = data / 'annotations/training/01.png'
    cv2.imwrite(str(label), np.ones((96, 128, 3), np.uint8))
    expected = f'the label {label} has several channels (RGB), but must have one of class numbers'
    assert message_of(configs['segmentation']) == expected


@pytest.mark.parametrize('workers', [0, 2])
def test_label_beyond_the_classes(workers, configs, data):
    label = data / 'annotations/training/04.png'
    cv2.imwrite(str(label), np.full((96, 128), 10, np.uint8))
    expected = (
        f'{label} gives the class 9, but the model has 3 classes, from 0 to 2, and ignores 255'
    )
    assert message_of(configs['segmentation'], workers=workers) == expected


def test_label_beyond_the_classes_where_nothing_is_lost(configs, data):
    """The validation metric ignores labels beyond the classes, and Dice clamps them."""
    for folder in ('training', 'validation'):
        label = data / f'annotations/{folder}/01.png'
        cv2.imwrite(str(label), np.full((96, 128), 10, np.uint8))
    assert load_all(configs['segmentation'], 'val') == 3
    dice = {'model.decode_head.loss_decode': dict(type='DiceLoss')}
    assert load_all(configs['segmentation'], **dice) == 6


@MODELS.register_module()
class HeadWithOtherClasses(UPerHead):
    pass


def test_label_beyond_the_classes_of_a_users_head(configs, data):
    label = data / 'annotations/training/04.png'
    cv2.imwrite(str(label), np.full((96, 128), 10, np.uint8))
    kind = {'model.decode_head.type': 'HeadWithOtherClasses', 'model.auxiliary_head': None}
    assert load_all(configs['segmentation'], **kind) == 6


@MODELS.register_module()
class ClassifierHeadWithOtherClasses(LinearClsHead):
    pass


def test_class_beyond_those_of_a_users_head(data):
    for name in ('a', 'b'):
        shutil.copytree(data / 'images/training', data / 'classes' / name)
    config = data / 'classifier.py'
    config.write_text(f"""
_base_ = '{Path(__file__).parents[1]}/small_classifier.py'
model = dict(head=dict(num_classes=1))
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
train_dataloader = dict(
    persistent_workers=False,
    dataset=dict(
        _delete_=True, type='CustomDataset', data_prefix='{data}/classes', pipeline=pipeline))
""")
    assert 'has the class 1, but the model has 1 classes' in message_of(config)
    assert load_all(config, **{'model.head.type': 'ClassifierHeadWithOtherClasses'}) == 12


@TRANSFORMS.register_module()
class LoadColors(LoadAnnotations):
    def _load_seg_map(self, results):
        results['gt_seg_map'] = cv2.imread(results['seg_map_path'])
        results['seg_fields'].append('gt_seg_map')


def test_colors_for_a_users_loader(configs, data):
    for label in (data / 'annotations/training').iterdir():
        cv2.imwrite(str(label), np.ones((96, 128, 3), np.uint8))
    pack = dict(type='PackSegInputs')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadColors'), pack]
    options = {'train_dataloader.dataset.pipeline': pipeline}
    assert load_all(configs['segmentation'], **options) == 6


def test_fault_of_the_pipeline_names_config_and_sample(configs, data):
    options = {'train_dataloader.dataset.pipeline.1.reduce_zero_label': False}
    message = message_of(configs['segmentation'], workers=2, **options)
    start = f'{configs["segmentation"]}: cannot load train data: AssertionError: Initialize'
    assert message.startswith(start)
    assert message.endswith(f'(loading {data}/images/training/00.jpg)')


def test_samples_that_a_pipeline_leaves_out_are_replaced(configs):
    @TRANSFORMS.register_module(force=True)
    class LeaveOutFirst:
        def __call__(self, results):
            return None if results['sample_idx'] == 0 else results

    steps = load_config(configs['segmentation']).train_dataloader.dataset.pipeline
    options = {'train_dataloader.dataset.pipeline': [dict(type='LeaveOutFirst'), *steps]}
    assert load_all(configs['segmentation'], **options) == 6


@pytest.mark.parametrize(
    'wrapper',
    [
        "dict(type='RepeatDataset', times=2, dataset=inner)",
        "dict(type='ConcatDataset', datasets=[inner, inner])",
    ],
    ids=['repeated', 'joined'],
)
def test_inside_of_wrappers(wrapper, configs, data):
    (data / 'wrapped.py').write_text(
        f"_base_ = '{configs['segmentation']}'\n"
        'inner = {{_base_.train_dataloader.dataset}}\n'
        f'train_dataloader = dict(dataset=dict(_delete_=True, **{wrapper}))\n'
    )
    image = data / 'images/training/03.jpg'
    assert message_of(data / 'wrapped.py', deleted=image) == f'{image} does not exist'


def test_datasets_can_be_sent_to_processes(configs):
    """If workers are not forked, the dataset is pickled for them."""
    config = load_config(configs['segmentation'])
    loader = Runner.build_dataloader(config.train_dataloader, seed=0)
    name_broken_samples(loader, config, 'train')
    again = pickle.loads(pickle.dumps(loader.dataset))
    assert again[0]['inputs'].shape == (3, 64, 64)
    assert again.prepare_data.dataset is again


def test_message_survives_what_torch_makes_of_it():
    rebuilt = BrokenSampleError(
        'Caught BrokenSampleError in DataLoader worker process 0.\nOriginal Traceback:\n  File\n'
        'nat_mm.data.broken_samples.BrokenSampleError: a.jpg does not exist\n'
    )
    assert str(rebuilt) == 'a.jpg does not exist'


@TRANSFORMS.register_module()
class KillWorker:
    def __call__(self, results):
        os.kill(os.getpid(), signal.SIGKILL)


def test_worker_that_is_killed(configs):
    options = {'train_dataloader.dataset.pipeline': [dict(type='KillWorker')]}
    message = message_of(configs['segmentation'], workers=1, **options)
    start = f'{configs["segmentation"]}: a worker that loads data '
    # Which of the two appears depends on timing.
    ends = ('is killed by signal: Killed', 'exited unexpectedly')
    assert message.startswith(tuple(f'{start}{end}; it may have run out of memory' for end in ends))
    assert 'lower num_workers or batch_size' in message


def test_training(train, configs, data):
    """The loop counts steps, so its workers start when it is built; the check is off."""
    image = data / 'images/training/03.jpg'
    image.write_bytes(image.read_bytes()[:4])
    options = ['train_dataloader.num_workers=1', 'train_cfg.max_iters=2']
    with pytest.raises(BrokenSampleError) as raised:
        train(
            [str(configs['segmentation']), '--no-check', '--work-dir', str(data / 'run')]
            + ['--cfg-options', *options]
        )
    assert str(raised.value) == f'{image} is not an image'
