"""Tests that image files of datasets in COCO's format are checked before training."""

import functools
import os
import shutil

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmengine.registry import DATASETS, TRANSFORMS
from PIL import Image, features


@pytest.fixture
def images(config, small_data, tmp_path):
    """A copy of the training images."""
    folder = tmp_path / 'copied'
    shutil.copytree(small_data / 'images' / 'training', folder)
    config.train_dataloader.dataset.data_prefix.img = str(folder)
    return folder


@pytest.fixture
def check(check, images):
    """Returns the errors and the warnings of the training data."""
    return functools.partial(check, splits=['train'], images=True, distinct=False)


def test_missing(check, images):
    (images / '01.jpg').unlink()
    (error,), _ = check()
    assert error == f'a file of the train dataset does not exist: {images}/01.jpg'


def test_missing_for_another_suffix(check, images):
    (images / '01.jpg').rename(images / '01.JPG')
    (error,), _ = check()
    assert error.endswith(f'{images}/01.jpg; there is {images}/01.JPG')


def test_missing_for_a_doubled_prefix(check, content, images):
    for each in content['train']['images']:
        each['file_name'] = f'copied/{each["file_name"]}'
    (error,), _ = check()
    assert f'{images}/copied/00.jpg, and 5 more; it is {images}/00.jpg: mend data_prefix' in error


@pytest.mark.parametrize('raw', [b'', b'<html>not found</html>', b'\xff\xd8\xff'])
def test_no_image(raw, check, images):
    (images / '01.jpg').write_bytes(raw)
    (error,), _ = check()
    assert f'{images}/01.jpg' in error
    assert error.startswith('a file of the train dataset ')


def test_folder_in_place_of_an_image(check, images):
    (images / '01.jpg').unlink()
    (images / '01.jpg').mkdir()
    (error,), _ = check()
    assert 'is not a file, but a folder' in error


def test_pipe_in_place_of_an_image(check, images):
    (images / '01.jpg').unlink()
    os.mkfifo(images / '01.jpg')  # opening it would wait for a writer
    (error,), _ = check()
    assert 'is not a file, but a folder, pipe' in error


def test_filtered_images_do_not_matter(check, content, images):
    (images / '01.jpg').unlink()
    (images / '02.jpg').unlink()
    content['train']['annotations'] = content['train']['annotations'][6:]
    assert check() == ([], [])


def test_missing_images_that_the_loader_passes_over(check, config, images):
    (images / '01.jpg').unlink()
    config.train_dataloader.dataset.pipeline[0].ignore_empty = True
    errors, (warning,) = check()
    assert errors == []
    assert 'does not exist' in warning


def test_own_loaders_may_read_other_files(check, config, images):
    @TRANSFORMS.register_module()
    class LoadArray(LoadImageFromFile):
        pass

    (images / '01.jpg').write_bytes(b'\x93NUMPY')
    config.train_dataloader.dataset.pipeline[0].type = 'LoadArray'
    try:
        assert check() == ([], [])
    finally:
        del TRANSFORMS._module_dict['LoadArray']


def test_images_beyond_the_indices_do_not_matter(check, config, images):
    (images / '04.jpg').unlink()
    config.train_dataloader.dataset.indices = 3
    assert check() == ([], [])


@pytest.mark.parametrize(
    ('size', 'is_error', 'expected'),
    [
        ((96, 128), True, '96 x 128, not 128 x 96; width and height are swapped'),
        ((64, 48), True, '64 x 48, not 128 x 96'),
        ((127, 96), False, '127 x 96, not 128 x 96'),
    ],
    ids=['swapped', 'half', 'a pixel'],
)
def test_another_size(size, is_error, expected, check, images):
    Image.new('RGB', size).save(images / '03.jpg')
    errors, warnings = check()
    (text,) = errors if is_error else warnings
    assert f'images whose files have another size (1 of 6, first: {images}/03.jpg' in text
    assert expected in text


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.avif'])
@pytest.mark.parametrize('stored', ['upright', 'sideways'])
def test_orientation(stored, suffix, check, content, images):
    if suffix == '.avif' and not features.check('avif'):
        pytest.skip('this Pillow has no AVIF')
    name = f'03{suffix}'
    content['train']['images'][3]['file_name'] = name
    exif = Image.Exif()
    exif[0x0112] = 6
    size = (128, 96) if stored == 'upright' else (96, 128)
    Image.new('RGB', size).save(images / name, exif=exif)
    # The size that mmcv reads decides.
    loaded = cv2.imread(str(images / name)).shape[:2]
    errors, _ = check()
    assert bool(errors) == (loaded != (96, 128))
    if errors:
        is_turned = loaded == size
        hint = "set color_type='color_ignore_orientation' in LoadImageFromFile"
        assert (hint in errors[0]) == is_turned


def test_orientation_that_the_loader_ignores(check, config, images):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (128, 96)).save(images / '03.jpg', exif=exif)
    config.train_dataloader.dataset.pipeline[0].color_type = 'color_ignore_orientation'
    assert check() == ([], [])


def test_format_that_only_opencv_knows(check, content, images):
    cv2.imwrite(str(images / '03.pfm'), np.zeros((96, 128, 3), np.float32))
    content['train']['images'][3]['file_name'] = '03.pfm'
    assert check() == ([], [])


def test_listed_twice(check, content):
    content['train']['images'][1]['file_name'] = '00.jpg'
    errors, (warning,) = check()
    assert errors == []
    assert 'lists images more than once, under several ids (1 of 6' in warning


def test_remote_images_are_not_looked_for(check, config):
    config.train_dataloader.dataset.pipeline[0].backend_args = dict(backend='petrel')
    config.train_dataloader.dataset.data_prefix.img = 's3://bucket/images'
    assert check() == ([], [])


def test_dataset_that_finds_images_in_its_own_way(check, config, content, images):
    @DATASETS.register_module(force=True)
    class NumberedImages(CocoDataset):
        def parse_data_info(self, raw_data_info):
            found = super().parse_data_info(raw_data_info)
            return {**found, 'img_path': f'{self.data_prefix["img"]}/{found["img_id"]:02d}.jpg'}

    config.train_dataloader.dataset.type = 'NumberedImages'
    for each in content['train']['images']:
        each['file_name'] = 'unknown'
    assert check() == ([], [])
    (images / '03.jpg').unlink()
    assert check()[0] == [f'a file of the train dataset does not exist: {images}/03.jpg']
