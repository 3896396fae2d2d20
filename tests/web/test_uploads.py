"""Tests what the page accepts as an image."""

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from nat_mm.inference.loading import ImageLoader
from nat_mm.web import uploads
from nat_mm.web.bounds import LONGEST_SIDE
from nat_mm.web.uploads import UploadError, read_upload, shown_name

NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
PNG = cv2.imencode('.png', NOISE)[1].tobytes()


@pytest.mark.parametrize(
    ('name', 'mode'),
    [
        ('photo.jpg', 'RGB'),
        ('print.jpg', 'CMYK'),
        ('gray.png', 'L'),
        ('clear.png', 'RGBA'),
        ('drawing.bmp', 'P'),
        ('scan.tiff', '1'),
        ('web.webp', 'RGB'),
    ],
)
def test_kinds_of_images(name, mode, tmp_path):
    Image.fromarray(NOISE).convert(mode).save(tmp_path / name)
    frame = read_upload(tmp_path / name)
    assert (frame.file_name, frame.image.shape, frame.image.dtype) == (name, (60, 80, 3), np.uint8)


def test_photograph_that_lies_on_its_side(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(NOISE).save(tmp_path / 'phone.jpg', exif=exif)
    assert read_upload(tmp_path / 'phone.jpg').image.shape == (80, 60, 3)


def test_large_image_is_made_smaller(tmp_path):
    Image.new('L', (4000, 3000)).save(tmp_path / 'large.png')
    assert read_upload(tmp_path / 'large.png').image.shape == (1000, 1333, 3)


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('notes.txt', b'no image'),
        ('fake.png', b'no image'),
        ('empty.jpg', b''),
        ('cut.png', PNG[:60]),
        ('header.png', PNG[:20]),
    ],
    ids=['text', 'text with a suffix', 'empty', 'no pixels', 'no header'],
)
def test_file_that_is_no_image(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UploadError, match=f'{name} is not an image that can be read here'):
        read_upload(tmp_path / name)


@pytest.mark.parametrize(
    ('size', 'message'),
    [
        ((7100, 7100), 'more than the 50 megapixels'),
        ((20000, 20000), 'more than the 50 megapixels'),
        ((31, 200), '31 x 200 pixels, which is too narrow'),
        ((4000, 90), '4000 x 90 pixels, which is too narrow'),
        ((9999, 1), '9999 x 1 pixels, which is too narrow'),
        ((1, 9999), '1 x 9999 pixels, which is too narrow'),
        ((1, 1), '1 x 1 pixels, which is too narrow'),
        ((1333, 31), '1333 x 31 pixels, which is too narrow'),
    ],
    ids=['huge', 'enormous', 'narrow', 'narrow when smaller', 'wide line', 'line', 'dot', 'wide'],
)
def test_image_of_a_size_that_is_not_taken(size, message, tmp_path):
    Image.new('1', size).save(tmp_path / 'image.png')
    with pytest.raises(UploadError, match=message):
        read_upload(tmp_path / 'image.png')


@pytest.mark.parametrize('side', [80, 2000], ids=['small', 'made smaller'])
def test_image_is_loaded_as_the_model_asks_for(side, tmp_path):
    """An 8-bit image to draw on is loaded along with it."""
    deep = cv2.resize(NOISE, (side, side)).astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / 'deep.png'), deep)
    pipeline = [dict(type='LoadImageFromFile', color_type='unchanged')]
    dataset = dict(type='BaseSegDataset', pipeline=pipeline)
    loader = ImageLoader(Config(dict(default_scope='mmcv', test_dataloader=dict(dataset=dataset))))
    frame = read_upload(tmp_path / 'deep.png', loader=loader)
    image = frame.results['img']
    side = min(side, LONGEST_SIDE)
    assert frame.image.shape == image.shape == (side, side, 3)
    assert frame.results['ori_shape'] == (side, side)
    assert (frame.image.dtype, image.dtype) == (np.uint8, np.uint16)
    assert image.max() > 20_000


def test_image_that_is_just_wide_enough(tmp_path):
    Image.new('L', (4000, 96)).save(tmp_path / 'wide.png')
    assert read_upload(tmp_path / 'wide.png').image.shape == (32, 1333, 3)


def test_image_is_called_what_its_visitor_calls_it(tmp_path):
    (tmp_path / 'abc').write_bytes(PNG)
    frame = read_upload(tmp_path / 'abc', 'holiday.png')
    assert (frame.name, frame.file_name) == ('image', 'holiday.png')


def test_upload_that_takes_too_long(tmp_path, monkeypatch):
    """A slow upload makes room for another; its late data is refused, and nothing of it is left."""
    monkeypatch.setattr(uploads, 'WAITING_SECONDS', 0)
    received = uploads.Uploads(tmp_path)
    late = received.begin()
    received.grow(late, b'a')
    other = received.begin()
    with pytest.raises(uploads.RefusalError, match='The file took too long to arrive'):
        received.grow(late, b'b')
    assert [path.name for path in tmp_path.iterdir()] == [other]


def test_file_that_is_gone(tmp_path):
    with pytest.raises(UploadError, match=r'holiday\.png is no longer kept here'):
        read_upload(tmp_path / 'abc', 'holiday.png')


@pytest.mark.parametrize(
    ('name', 'shown'),
    [
        ('disc.png', 'disc.png'),
        ('../../disc.png', 'disc.png'),
        ('C:\\disc.png', 'disc.png'),
        ('a\0b\n\u202e.png', 'ab.png'),
        ('ä☃ 𝄞.png', 'ä☃ 𝄞.png'),
        ('a' * 200, 'a' * 100),
        ('..', 'image'),
        ('', 'image'),
        (None, 'image'),
        (['a'], 'image'),
    ],
    ids=repr,
)
def test_shown_name(name, shown):
    assert shown_name(name) == shown
