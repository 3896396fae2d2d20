"""Tests commands on a small classifier configured as by a user: training, testing, mistakes."""

import json
import pickle

import cv2
import numpy as np
import pytest

from nat_mm.errors import UserError
from tests.loading import forget_visualizers, load_command
from tests.model_zoo import ROOT

pytest.importorskip('mmpretrain', reason='classification needs mmpretrain')

from mmpretrain.visualization import UniversalVisualizer

CLASSES = ('dark', 'bright')
CONFIG = """
_base_ = '{root}/tests/small_classifier.py'
model = dict(head=dict(num_classes=2))
data_preprocessor = dict(num_classes=2)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=32),
    dict(type='PackInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=36),
    dict(type='CenterCrop', crop_size=32),
    dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(
        _delete_=True, type='CustomDataset', data_root='{data}', data_prefix='train',
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(
        _delete_=True, type='CustomDataset', data_root='{data}', data_prefix='val',
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(topk=1)
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=4, val_interval=4)
param_scheduler = [dict(type='ConstantLR', factor=1.0, begin=0, end=4)]
default_hooks = dict(logger=dict(interval=1))
tta_pipeline = [*test_pipeline[:-1], _base_.tta_pipeline[-1]]
randomness = dict(seed=0)
"""


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Folders train and val, each with a folder of images for each class."""
    root = tmp_path_factory.mktemp('folders')
    rng = np.random.default_rng(0)
    for part, count in (('train', 8), ('val', 3)):
        for name, brightness in zip(CLASSES, (60, 190), strict=True):
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                picture = rng.integers(brightness - 30, brightness + 30, (40, 48, 3), np.uint8)
                cv2.imwrite(str(folder / f'{index}.png'), picture)
    return root


@pytest.fixture(scope='module')
def config(data, tmp_path_factory):
    path = tmp_path_factory.mktemp('configs') / 'small_classifier.py'
    path.write_text(CONFIG.replace('{data}', str(data)).replace('{root}', str(ROOT)))
    return str(path)


@pytest.fixture(scope='module')
def commands(train, test, predict):
    """``main`` of each command."""
    return {'train': train, 'test': test, 'predict': predict}


@pytest.fixture(scope='module')
def trained(commands, config, tmp_path_factory):
    """The checkpoint of a finished training run."""
    forget_visualizers()
    work_dir = tmp_path_factory.mktemp('trained')
    # With this alpha, almost all of a mixed image comes from one of the two. Otherwise the shares
    # affect the loss more than 16 steps of training do.
    options = [f'model.train_cfg.augments.{index}.alpha=0.01' for index in (0, 1)]
    commands['train']([config, '--work-dir', str(work_dir), '--cfg-options', *options])
    return work_dir / 'epoch_4.pth'


@pytest.fixture
def run_test(commands, config, tmp_path):
    """Runs tools/test.py and returns what it measured."""

    def run(checkpoint, *arguments):
        commands['test']([config, str(checkpoint), '--work-dir', str(tmp_path), *arguments])
        (path,) = tmp_path.glob('*/*.json')
        return json.loads(path.read_text())

    return run


def test_training_learns(trained):
    (path,) = trained.parent.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    losses = [row['loss'] for row in rows if 'loss' in row]
    assert len(losses) == 4 * 4
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert [row['accuracy/top1'] for row in rows if 'accuracy/top1' in row] == [100.0]


def test_testing_measures_and_saves(run_test, trained, tmp_path):
    shown, out = tmp_path / 'shown', tmp_path / 'out.pkl'
    measured = run_test(trained, '--show-dir', str(shown), '--out', str(out))
    assert measured['accuracy/top1'] == 100.0
    drawn = sorted(str(path.relative_to(shown)) for path in shown.rglob('*.png'))
    assert drawn == [f'{name}/{number}.png' for name in ('bright', 'dark') for number in range(3)]
    predictions = pickle.loads(out.read_bytes())
    assert [int(prediction['pred_label']) for prediction in predictions] == [0] * 3 + [1] * 3


def test_drawing_without_a_visualizer_in_the_config(run_test, trained, tmp_path):
    forget_visualizers()
    run_test(trained, '--show-dir', str(tmp_path / 'shown'), '--cfg-options', 'visualizer=None')
    assert len(list((tmp_path / 'shown').rglob('*.png'))) == 6


def test_testing_with_mirror_images(run_test, trained):
    assert run_test(trained, '--tta')['accuracy/top1'] == 100.0


def test_prediction(commands, config, trained, data, tmp_path):
    picture = data / 'val' / 'dark' / '1.png'
    commands['predict']([config, str(trained), str(picture), '--out-dir', str(tmp_path)])
    assert cv2.imread(str(tmp_path / 'images' / '1.jpg')).shape == (40, 48, 3)
    result = json.loads((tmp_path / 'results' / '1.json').read_text())
    likeliest, other = result.pop('classes')
    assert result == {'image': '1.png', 'height': 40, 'width': 48}
    assert (likeliest['label'], likeliest['class_name']) == (1, 'dark')
    assert 0.5 < likeliest['score'] < 1
    assert other['score'] == pytest.approx(1 - likeliest['score'])


def test_browsing(config, tmp_path, monkeypatch):
    """Mixed images have the classes of both of their sources."""
    labels = []
    draw = UniversalVisualizer.visualize_cls

    def keep_labels(visualizer, image, sample, **options):
        labels.append(tuple(sample.gt_label.tolist()))
        draw(visualizer, image, sample, **options)

    monkeypatch.setattr(UniversalVisualizer, 'visualize_cls', keep_labels)
    browse = load_command('browse_dataset').main
    browse([config, '--out-dir', str(tmp_path), '--number', '16'])
    pictures = [cv2.imread(str(path)) for path in sorted(tmp_path.iterdir())]
    assert {picture.shape for picture in pictures} == {(32, 32, 3)}
    assert set(labels) == {(0,), (1,), (0, 1)}
    for label, brightness in (((1,), 60), ((0,), 190)):
        found = [picture for picture, own in zip(pictures, labels, strict=True) if own == label]
        # These rows are below the letters.
        assert np.mean([picture[-8:] for picture in found]) == pytest.approx(brightness, abs=4)


@pytest.fixture
def mistake(commands, config, tmp_path):
    """Starts a training run that must be refused and returns the message."""

    def run(*options):
        with pytest.raises(UserError) as raised:
            commands['train']([config, '--work-dir', str(tmp_path), '--cfg-options', *options])
        return str(raised.value)

    return run


def test_missing_folder(mistake, data):
    message = mistake('train_dataloader.dataset.data_prefix=gone')
    assert f'data_prefix of the dataset does not exist: {data}/gone' in message


def test_missing_imagenet(mistake, config, tmp_path):
    options = ('type=ImageNet', 'split=train', 'data_prefix=', f'data_root={tmp_path}/gone')
    message = mistake(*(f'train_dataloader.dataset.{option}' for option in options))
    # The other error is that the head does not have ImageNet's 1000 classes.
    more = f' (and 1 more: nat-mm check {config} lists them)'
    assert message == f'the folder of ImageNet does not exist: {tmp_path}/gone/train{more}'


def test_other_number_of_classes(mistake, data):
    message = mistake('train_dataloader.dataset.type=ImageNet')
    folders = f"{data}/train has folders of 2 classes ('bright', 'dark')"
    assert message.startswith(f'{folders}, but ImageNet')
    assert 'expects 1000' in message


def test_folder_without_classes(mistake, data):
    message = mistake('train_dataloader.dataset.data_prefix=train/dark')
    assert message == f'{data}/train/dark has no folders with images, one for each class'


def test_more_classes_than_the_head_has(mistake):
    message = mistake('model.head.num_classes=1', 'data_preprocessor.num_classes=1')
    assert 'the train dataset has 2 classes, but model.head.num_classes is 1' in message


def test_other_number_of_classes_for_mixing(mistake):
    message = mistake('model.head.num_classes=3')
    assert 'data_preprocessor.num_classes is 2, but model.head.num_classes is 3' in message


def test_predictions_of_a_classifier_are_saved_as_pickle(commands, config, trained, tmp_path):
    with pytest.raises(UserError, match='--out of a classifier must end with .pkl'):
        commands['test']([config, str(trained), '--out', 'out', '--work-dir', str(tmp_path)])
