"""Tests that tools/browse_dataset.py shows the images that the model gets."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from nat_mm.analysis.batches import _undo_normalization
from nat_mm.errors import UserError
from tests.loading import load_command


@pytest.fixture(scope='module')
def browse():
    """``main`` of tools/browse_dataset.py."""
    return load_command('browse_dataset').main


@pytest.fixture
def pictures(browse, configs, tmp_path, capsys):
    """Browses a config and returns the images (BGR) and their source files."""

    def run(task, *arguments, folder='out'):
        browse([str(configs[task]), '--out-dir', str(tmp_path / folder), *map(str, arguments)])
        lines = capsys.readouterr().out.splitlines()
        lines = [line.split(': from ') for line in lines if ': from ' in line]
        return [cv2.imread(path) for path, _ in lines], [source for _, source in lines]

    return run


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_same_seed_same_pictures(task, pictures, tmp_path):
    first, sources = pictures(task, '--number', 3, '--seed', 3, folder='first')
    again, _ = pictures(task, '--number', 3, '--seed', 3, folder='again')
    other, other_sources = pictures(task, '--number', 3, '--seed', 4, folder='other')
    assert len(first) == len(other) == 3
    names = sorted(path.name for path in (tmp_path / 'other').iterdir())
    assert names == [f'train_seed4_{number:04d}.png' for number in range(3)]
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert sources != other_sources
    assert any((one != two).any() for one, two in zip(first, other, strict=True))


def test_infinite_sampler_ends_with_the_epoch(pictures):
    options = ['train_dataloader.sampler.type=InfiniteSampler', 'train_dataloader.batch_size=4']
    _, sources = pictures('segmentation', '--number', 100, '--cfg-options', *options)
    assert len(sources) == len(set(sources)) == 6


def test_detection_batch_is_padded(pictures):
    """Images show their files except where boxes are drawn; padding has the mean color, a gray."""
    resize = 'train_dataloader.dataset.pipeline.2.scale="(100,75)"'
    (drawn, *_), (source, *_) = pictures('detection', '--number', 2, '--cfg-options', resize)
    assert drawn.shape == (96, 128, 3)  # 75 x 100, padded to multiples of 32
    assert abs(drawn[80:, :].astype(int) - [104, 116, 124]).max() <= 1
    image = cv2.resize(cv2.imread(source), (100, 75))
    straight, flipped = (
        np.median(abs(drawn[:75, :100].astype(int) - which)) for which in (image, image[:, ::-1])
    )
    assert min(straight, flipped) <= 1
    # Boxes and discs are drawn in color, while the files are gray.
    assert np.ptp(drawn[:75, :100].astype(int), axis=2).max() > 50


@pytest.mark.parametrize('phase', ['val', 'test'])
def test_truth_is_scaled_like_the_image(phase, pictures):
    """At double size, the colors of the ground truth cover the box and the disc."""
    resize = f'{phase}_dataloader.dataset.pipeline.1.scale="(256,192)"'
    arguments = ['--phase', phase, '--number', 1, '--cfg-options', resize]
    (drawn,), (source,) = pictures('detection', *arguments)
    assert drawn.shape == (192, 256, 3)
    colored = np.ptp(drawn.astype(int), axis=2) > 25
    gray = cv2.resize(cv2.imread(source, cv2.IMREAD_GRAYSCALE), (256, 192))
    objects = (gray < 60) | (gray > 200)
    assert colored[objects].mean() > 0.9
    assert colored[~objects].mean() < 0.25  # names and outlines are also colored


def test_segmentation_truth(pictures):
    """The box is red and the disc blue, as in the config's palette; small images are padded."""
    crop = 'train_dataloader.dataset.pipeline.2.crop_size="(96,40)"'
    size = 'model.data_preprocessor.size="(96,64)"'
    drawn, _ = pictures('segmentation', '--number', 6, '--cfg-options', crop, size)
    assert {picture.shape for picture in drawn} == {(96, 64, 3)}
    means = [104, 116, 124]  # blue, green, red, halved by the black of no class
    for picture in drawn:
        padding = abs(picture[:, 40:].astype(int) - np.array(means) / 2).max(axis=2) <= 2
        assert padding.mean() > 0.8  # class names may reach into the padding
    blue, green, red = np.stack(drawn)[:, :, :40].astype(int).transpose(3, 0, 1, 2)
    assert ((red - blue > 80) & (green < 30)).any()
    assert ((blue - red > 80) & (green > 90)).any()


@pytest.mark.parametrize('phase', ['train', 'val'])
def test_pixel_labels_of_a_detector(phase, pictures, small_data):
    """mmdet calls them ``sem_seg``, mmseg ``data``; they are scaled and padded like the image."""
    dataset = f'{phase}_dataloader.dataset'
    folder = {'train': 'training', 'val': 'validation'}[phase]
    steps = {'train': (1, 2), 'val': (2, 1)}
    loading, resizing = (f'{dataset}.pipeline.{number}' for number in steps[phase])
    options = [f'{loading}.with_seg=True', f'{resizing}.scale="(100,75)"']
    options.append(f'{dataset}.data_prefix.seg={small_data}/annotations/{folder}')
    with_labels, _ = pictures('detection', '--phase', phase, '--cfg-options', *options)
    options[0] = f'{loading}.with_seg=False'
    without, _ = pictures('detection', '--phase', phase, '--cfg-options', *options, folder='none')
    for one, other in zip(with_labels, without, strict=True):
        assert one.shape == other.shape == (96, 128, 3)
        assert (one[:75, :100] != other[:75, :100]).any(axis=2).mean() > 0.9
        padding = abs(one[80:].astype(int) - np.array([104, 116, 124]) / 2).max(axis=2) <= 2
        assert padding.mean() > 0.8  # darkened, as it has no class


def test_preprocessor_that_counts_iterations(browse, configs, tmp_path):
    """mmdet's YOLOX resizes batches every few iterations."""
    config = tmp_path / 'resized.py'
    config.write_text(
        f"_base_ = '{configs['detection']}'\n"
        'resize = dict(\n'
        "    type='BatchSyncRandomResize', random_size_range=(64, 64), interval=2)\n"
        'model = dict(data_preprocessor=dict(pad_mask=False, batch_augments=[resize]))\n'
        'train_pipeline = _base_.train_pipeline\n'
        'train_pipeline[1].with_mask = False\n'
        'train_dataloader = dict(batch_size=1, dataset=dict(pipeline=train_pipeline))\n'
    )
    browse([str(config), '--number', '3', '--out-dir', str(tmp_path)])
    drawn = [cv2.imread(str(path)) for path in sorted(tmp_path.glob('*.png'))]
    assert [image.shape for image in drawn] == [(96, 128, 3), (96, 128, 3), (64, 64, 3)]


@HOOKS.register_module()
class KeepInputs(Hook):
    """Keeps the first training batch."""

    inputs = None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == 0:
            data = runner.model.data_preprocessor(data_batch, True)
            KeepInputs.inputs = data['inputs'], [each.img_path for each in data['data_samples']]


def test_batch_is_that_of_the_training(pictures, train, configs, tmp_path):
    """With the same seed, a data loader worker draws the same random numbers as in training."""
    options = ['train_dataloader.num_workers=1', 'randomness.seed=7']
    work_dir = ['--work-dir', str(tmp_path / 'work_dir')]
    short = ['train_cfg.max_iters=1', 'train_cfg.val_interval=1']
    config = tmp_path / 'kept.py'
    hooks = "custom_hooks = [dict(type='KeepInputs')]"
    config.write_text(f"_base_ = '{configs['segmentation']}'\n{hooks}\n")
    train([str(config), *work_dir, '--cfg-options', *options, *short])
    inputs, paths = KeepInputs.inputs
    drawn, sources = pictures('segmentation', '--number', len(paths), '--cfg-options', *options)
    assert sources == paths
    preprocessor = Config.fromfile(configs['segmentation']).model.data_preprocessor
    mean, std = (torch.tensor(preprocessor[name]).view(3, 1, 1) for name in ('mean', 'std'))
    for tensor, picture in zip(inputs, drawn, strict=True):
        image = (tensor * std + mean).round().byte().permute(1, 2, 0).numpy()[..., ::-1]
        background = np.ptp(picture.astype(int), axis=2) <= 2
        # The visualizer shows background, black in the palette, at half its brightness.
        difference = abs(picture[background].astype(int) - image[background] / 2)
        assert np.percentile(difference, 90) <= 1


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--number', '0'], '--number must be at least 1, got 0'),
        (['--seed', '-1'], '--seed must be from 0 to 2147483647, got -1'),
        (['--cfg-options', 'train_dataloader=None'], 'has no train_dataloader'),
        (['--cfg-options', 'train_dataloader.dataset.data_root=gone'], 'does not exist: '),
        (['--cfg-options', 'model.data_preprocessor.sice=3'], 'sice'),
    ],
    ids=['number', 'seed', 'no data loader', 'no data', 'preprocessor'],
)
def test_mistakes(arguments, message, browse, configs, tmp_path):
    with pytest.raises(UserError) as raised:
        browse([str(configs['segmentation']), '--out-dir', str(tmp_path / 'out'), *arguments])
    assert message in str(raised.value)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('workers', [0, 1])
def test_pipeline_that_fails(workers, browse, configs, tmp_path):
    options = [
        'train_dataloader.dataset.pipeline.1.reduce_zero_label=False',
        f'train_dataloader.num_workers={workers}',
    ]
    config = str(configs['segmentation'])
    with pytest.raises(UserError) as raised:
        browse([config, '--out-dir', str(tmp_path / 'out'), '--cfg-options', *options])
    start = f'{config}: cannot load train data: AssertionError: Initialize dataset with'
    assert str(raised.value).startswith(start)


def test_out_dir_that_is_a_file(browse, configs, tmp_path):
    (tmp_path / 'out').touch()
    with pytest.raises(UserError, match='out is a file, not a folder'):
        browse([str(configs['segmentation']), '--out-dir', str(tmp_path / 'out')])


@pytest.mark.parametrize('is_rgb', [False, True])
@pytest.mark.parametrize(('channels', 'factor'), [(3, 1), (3, 257), (5, 257), (1, 257)])
def test_images_of_any_kind_are_drawn_in_8_bits(channels, factor, is_rgb):
    shades = np.arange(256, dtype=np.float32)
    pixels = np.tile(shades * factor, (channels, 4, 1))
    preprocessor = SimpleNamespace(_enable_normalize=True, mean=1000, std=500)
    tensor = (torch.from_numpy(pixels) - 1000) / 500
    image = _undo_normalization(tensor, preprocessor, is_rgb=is_rgb)
    assert (image.shape, image.dtype) == ((4, 256, 3), np.uint8)
    np.testing.assert_allclose(image[0, :, 1].astype(int), shades, atol=0 if factor == 1 else 3)
