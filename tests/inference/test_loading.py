"""Tests that images are loaded as in the config's test pipeline, and drawn on in 8 bits."""

import json

import cv2
import numpy as np
import pytest
import tifffile
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from PIL import Image, ImageFile

from nat_mm.errors import UserError
from nat_mm.inference.images import UnreadableInput, to_drawing
from nat_mm.inference.loading import ImageLoader

HEIGHT, WIDTH = 40, 56
NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
DEEP = np.random.default_rng(1).integers(0, 4096, (HEIGHT, WIDTH), dtype=np.uint16)
MANY = np.random.default_rng(2).integers(0, 4096, (HEIGHT, WIDTH, 5), dtype=np.uint16)


@TRANSFORMS.register_module()
class ReadBands:
    """A user's own loader, which opens files itself and does not say which kinds it reads."""

    def __call__(self, results: dict) -> dict:
        image = np.load(results['img_path'])
        return {**results, 'img': image, 'img_shape': image.shape[:2], 'bands': image.shape[2]}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('kinds')
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph = Image.fromarray(NOISE)
    photograph.save(folder / 'photo.png')
    photograph.save(folder / 'sideways.jpg', exif=exif)
    photograph.convert('CMYK').save(folder / 'cmyk.jpg')
    photograph.convert('P').save(folder / 'palette.png')
    photograph.convert('RGBA').save(folder / 'alpha.png')
    photograph.convert('L').save(folder / 'gray.png')
    cv2.imwrite(str(folder / 'deep.png'), NOISE.astype(np.uint16) * 257)
    cv2.imwrite(str(folder / 'deep_gray.png'), DEEP)
    tifffile.imwrite(folder / 'twelve.tif', DEEP)
    tifffile.imwrite(folder / 'float.tif', DEEP.astype(np.float32) / 4095)
    tifffile.imwrite(folder / 'many.tif', MANY, photometric='minisblack', planarconfig='contig')
    np.save(folder / 'many.npy', MANY)
    return folder


def make_loader(*transforms) -> ImageLoader:
    pipeline = [*transforms, dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
    dataset = dict(type='BaseSegDataset', pipeline=pipeline)
    return ImageLoader(Config(dict(default_scope='mmcv', test_dataloader=dict(dataset=dataset))))


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('photo.png', {}),
        ('photo.png', {'to_float32': True}),
        ('photo.png', {'color_type': 'grayscale'}),
        ('photo.png', {'imdecode_backend': 'pillow'}),
        ('photo.png', {'backend_args': {'backend': 'local'}}),
        ('gray.png', {}),
        ('gray.png', {'color_type': 'unchanged'}),
        ('sideways.jpg', {}),
        ('sideways.jpg', {'color_type': 'unchanged'}),
        ('sideways.jpg', {'color_type': 'color_ignore_orientation'}),
        ('sideways.jpg', {'imdecode_backend': 'pillow'}),
        ('sideways.jpg', {'imdecode_backend': 'pillow', 'color_type': 'grayscale'}),
        ('cmyk.jpg', {}),
        ('cmyk.jpg', {'imdecode_backend': 'pillow', 'color_type': 'unchanged'}),
        ('palette.png', {}),
        ('palette.png', {'imdecode_backend': 'pillow', 'color_type': 'unchanged'}),
        ('alpha.png', {'color_type': 'unchanged'}),
        ('deep.png', {}),
        ('deep.png', {'color_type': 'unchanged', 'to_float32': True}),
        ('deep_gray.png', {'color_type': 'unchanged'}),
        ('twelve.tif', {'color_type': 'unchanged'}),
        ('twelve.tif', {'imdecode_backend': 'tifffile'}),
        ('float.tif', {'color_type': 'unchanged'}),
        ('many.tif', {'imdecode_backend': 'tifffile', 'to_float32': True}),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value),
)
def test_model_gets_what_tests_load(name, options, files):
    path = files / name
    expected = LoadImageFromFile(**options)({'img_path': str(path)})
    loaded = make_loader(dict(type='LoadImageFromFile', **options)).load_file(path)
    assert loaded.results.keys() == expected.keys()
    for key in ('img_path', 'img_shape', 'ori_shape'):
        assert loaded.results[key] == expected[key]
    assert loaded.results['img'].dtype == expected['img'].dtype
    np.testing.assert_array_equal(loaded.results['img'], expected['img'])
    assert loaded.drawing.shape == (*expected['img_shape'], 3)
    assert loaded.drawing.dtype == np.uint8
    assert loaded.drawing.flags.c_contiguous


def test_photographs_are_drawn_on_as_they_are(files):
    for options in ({}, {'to_float32': True}, {'imdecode_backend': 'pillow'}):
        loaded = make_loader(dict(type='LoadImageFromFile', **options)).load_file(
            files / 'photo.png'
        )
        np.testing.assert_array_equal(loaded.drawing, NOISE[..., ::-1])


def test_16_bits_are_stretched_to_8():
    shades = np.linspace(1000, 1200, 256).round().astype(np.uint16)
    drawing = to_drawing(np.tile(shades, (30, 1)))
    assert drawing.shape == (30, 256, 3)
    np.testing.assert_allclose(drawing[0, :, 0], np.arange(256), atol=3)


@pytest.mark.parametrize(
    ('image', 'expected'),
    [
        (np.full((2, 3), 7, np.uint16), 0),
        (np.full((2, 3, 1), 7, np.uint8), 7),
        (np.full((2, 3, 2), 7, np.uint8), 7),
        (np.full((2, 3, 9), 7, np.uint8), 7),
        (np.full((2, 3), np.nan, np.float32), 0),
        (np.zeros((2, 3), bool), 0),
    ],
    ids=['plain 16 bit', 'one channel', 'two channels', 'nine channels', 'no numbers', 'bool'],
)
def test_drawing_of_any_kind(image, expected):
    drawing = to_drawing(image)
    assert (drawing.shape, drawing.dtype) == ((2, 3, 3), np.uint8)
    assert (drawing == expected).all()


def test_array_that_is_no_image_cannot_be_drawn_on():
    with pytest.raises(UnreadableInput, match=r'its shape \[1, 2, 3, 4\] is not that of an image'):
        to_drawing(np.zeros((1, 2, 3, 4)))


def test_loader_of_another_name_opens_the_file(files):
    loader = make_loader(dict(type='ReadBands'))
    loaded = loader.load_file(files / 'many.npy')
    np.testing.assert_array_equal(loaded.results['img'], MANY)
    assert loaded.results['bands'] == 5
    assert loaded.drawing.shape == (HEIGHT, WIDTH, 3)
    assert [each['type'] for each in loader.others] == ['PackSegInputs']
    with pytest.raises(ValueError, match='pickle'):  # numpy's own message is kept
        loader.load_file(files / 'photo.png')


@pytest.mark.parametrize(
    ('options', 'image'),
    [
        ({'color_type': 'unchanged'}, DEEP),
        ({'color_type': 'unchanged', 'to_float32': True}, MANY),
        ({'color_type': 'grayscale'}, NOISE),
    ],
    ids=['one channel', 'many channels', 'gray'],
)
def test_arrays_are_taken_for_what_a_decoder_returned(options, image):
    loaded = make_loader(dict(type='LoadImageFromFile', **options)).load_array(image)
    expected = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image is NOISE else image
    np.testing.assert_array_equal(loaded.results['img'], expected)
    assert loaded.results['img'].dtype == (np.float32 if image is MANY else image.dtype)


@pytest.mark.parametrize('options', [{}, {'color_type': 'grayscale'}], ids=['color', 'gray'])
def test_arrays_that_no_decoder_returns(options):
    loader = make_loader(dict(type='LoadImageFromFile', **options))
    with pytest.raises(TypeError, match='got .* of uint16'):
        loader.load_array(DEEP)


@pytest.mark.parametrize('name', ['many.tif', 'twelve.tif'])
def test_limit_holds_for_what_pillow_does_not_know(name, files):
    loader = make_loader(dict(type='LoadImageFromFile', imdecode_backend='tifffile'))
    with pytest.raises(UnreadableInput, match='56 x 40 pixels are more than 0.002 megapixels'):
        loader.load_file(files / name, max_megapixels=0.002)


def test_limit_holds_for_all_pages(tmp_path):
    pages = np.zeros((200, 64, 64), np.uint8)
    tifffile.imwrite(tmp_path / 'stack.tif', pages, compression='zlib')
    loader = make_loader(dict(type='LoadImageFromFile', imdecode_backend='tifffile'))
    with pytest.raises(UnreadableInput, match='too large a file for 0.1 megapixels'):
        loader.load_file(tmp_path / 'stack.tif', max_megapixels=0.1)


@pytest.mark.parametrize('backend', ['cv2', 'pillow', 'tifffile'])
def test_file_that_is_no_image(backend, tmp_path):
    (tmp_path / 'text.tif').write_text('no image')
    loader = make_loader(dict(type='LoadImageFromFile', imdecode_backend=backend))
    with pytest.raises(UnreadableInput, match='not an image that can be read'):
        loader.load_file(tmp_path / 'text.tif')


@pytest.mark.parametrize(
    ('backend', 'name', 'end'),
    [
        ('cv2', 'photo.png', 3000),
        ('pillow', 'photo.png', 3000),
        ('pillow', 'sideways.jpg', 1000),
        ('pillow', 'twelve.tif', 2000),
        ('pillow', 'alpha.png', 40),
        ('tifffile', 'twelve.tif', 100),
    ],
)
def test_file_that_is_cut(backend, name, end, files):
    content = (files / name).read_bytes()[:end]
    loader = make_loader(dict(type='LoadImageFromFile', imdecode_backend=backend))
    with pytest.raises(UnreadableInput, match='not an image that can be read'):
        loader.load_bytes(content)


def test_image_that_takes_all_memory_is_not_called_damaged(files, monkeypatch):
    def fail(image):
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, 'load', fail)
    loader = make_loader(dict(type='LoadImageFromFile', imdecode_backend='pillow'))
    with pytest.raises(MemoryError):
        loader.load_file(files / 'photo.png')


def test_config_without_a_pipeline():
    with pytest.raises(UserError, match='no test_dataloader with a pipeline'):
        ImageLoader(Config(dict(default_scope='mmcv')))


def test_pipeline_of_a_dataset_of_arrays(files):
    """As for MNIST and CIFAR, whose arrays such a pipeline takes as they are."""
    pipeline = [dict(type='Resize', scale=32), dict(type='PackInputs')]
    config = dict(default_scope='mmpretrain', test_dataloader=dict(dataset=dict(pipeline=pipeline)))
    loader = ImageLoader(Config(config))
    assert loader.others == pipeline
    with pytest.raises(UserError, match='let it begin with LoadImageFromFile to load files'):
        loader.load_file(files / 'photo.png')
    digit = np.zeros((28, 28), np.uint8)
    assert loader.load_array(digit).results['img'] is digit


def test_pipeline_of_a_tracker():
    pipeline = [dict(type='TransformBroadcaster', transforms=[]), dict(type='PackTrackInputs')]
    config = dict(default_scope='mmdet', test_dataloader=dict(dataset=dict(pipeline=pipeline)))
    with pytest.raises(UserError, match="takes the frames of its dataset's videos, not single"):
        ImageLoader(Config(config))


def test_loaders_that_load_alike():
    plain = make_loader(dict(type='LoadImageFromFile', backend_args=None))
    assert plain.loads_like(ImageLoader())
    for options in ({'to_float32': True}, {'color_type': 'unchanged'}):
        assert not plain.loads_like(make_loader(dict(type='LoadImageFromFile', **options)))
    own = make_loader(dict(type='ReadBands'))
    assert own.loads_like(make_loader(dict(type='ReadBands')))
    assert not own.loads_like(plain)
