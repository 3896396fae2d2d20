"""Tests that the sizes of images are read from headers of any content in a short time."""

import io
import struct

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from nat_mm.inference import image_sizes
from nat_mm.inference.image_sizes import image_size

HEIGHT, WIDTH = 40, 56
NOISE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def by_pillow(kind: str, mode: str = 'RGB', **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(file, kind, **options)
    return file.getvalue()


def by_opencv(suffix: str) -> bytes:
    return cv2.imencode(suffix, NOISE)[1].tobytes()


def by_tifffile(**options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, **options)
    return file.getvalue()


def sideways() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return by_pillow('JPEG', exif=exif)


FIVE = np.zeros((HEIGHT, WIDTH, 5), np.uint16)
FILES = {
    'jpeg': by_opencv('.jpg'),
    'progressive jpeg': by_pillow('JPEG', progressive=True),
    'jpeg with exif': sideways(),
    'jpeg with a profile': by_pillow('JPEG', icc_profile=bytes(150_000)),
    'cmyk jpeg': by_pillow('JPEG', 'CMYK'),
    'mpo': by_pillow('MPO', save_all=True, append_images=[Image.new('RGB', (9, 9))]),
    'png': by_opencv('.png'),
    'png with a palette': by_pillow('PNG', 'P'),
    'gif': by_pillow('GIF'),
    'webp': by_pillow('WEBP'),
    'lossless webp': by_pillow('WEBP', lossless=True),
    'webp with alpha': by_pillow('WEBP', 'RGBA', exif=b'Exif'),
    'bmp': by_opencv('.bmp'),
    'ppm': by_opencv('.ppm'),
    'pgm': by_pillow('PPM', 'L'),
    'sun raster': by_opencv('.sr'),
    'jpeg 2000': by_opencv('.jp2'),
    'tiff': by_opencv('.tif'),
    'tiff of 5 channels': by_tifffile(data=FIVE, photometric='minisblack', planarconfig='contig'),
    'big-endian tiff': by_tifffile(data=NOISE, byteorder='>'),
    'bigtiff': by_tifffile(data=NOISE, bigtiff=True),
    'big-endian bigtiff': by_tifffile(data=NOISE, bigtiff=True, byteorder='>'),
}


@pytest.mark.parametrize('kind', FILES)
def test_sizes(kind):
    file = io.BytesIO(FILES[kind])
    assert image_size(file) == (WIDTH, HEIGHT)
    assert file.tell() == 0


@pytest.mark.parametrize('kind', FILES)
def test_files_that_are_cut(kind):
    content = FILES[kind]
    for end in (0, 1, 2, 3, 5, 9, 13, 17, 21, 25, 29):
        assert image_size(io.BytesIO(content[:end])) in (None, (WIDTH, HEIGHT))


def after(kind: str, place: int, filler: bytes) -> bytes:
    content = FILES[kind]
    return content[:place] + filler + content[place:]


CHUNK = struct.pack('>L4sL', 0, b'abCd', 0)
TAGS = struct.pack('<2sHLH', b'II', 42, 8, 65535) + b''.join(
    struct.pack('<HHLL', tag, 7, 10**6, 8) for tag in range(65535)
)
BOMBS = {
    'gif of comments': (after('gif', 13, b'!\xfe\x01a\x00' * 10**6), (WIDTH, HEIGHT)),
    'png of chunks': (after('png', 33, CHUNK * 10**6), (WIDTH, HEIGHT)),
    'jpeg of segments': (after('jpeg', 2, b'\xff\xe5\x00\x02' * 10**6), None),
    'jpeg of padding': (after('jpeg', 2, b'\xff' * 10**6), None),
    'jpeg of junk': (after('jpeg', 2, bytes(10**6)), None),
    'ppm of a comment': (after('ppm', 3, b'#' + b'a' * 10**6), None),
    'jpeg 2000 of boxes': (after('jpeg 2000', 12, b'\x00\x00\x00\x08free' * 10**6), None),
    'tiff of tags': (TAGS + bytes(10**6), None),
}


@pytest.mark.parametrize('kind', BOMBS)
def test_file_that_would_keep_a_parser_busy(kind):
    content, size = BOMBS[kind]
    file = CountingFile(content)
    assert image_size(file) == size
    assert file.reads <= 3 * image_sizes._MOST_READS
    assert file.bytes <= 10**6


class CountingFile(io.BytesIO):
    """Counts calls and bytes."""

    reads = bytes = 0

    def read(self, size=-1):
        content = super().read(size)
        self.reads += 1
        self.bytes += len(content)
        return content


def test_no_parser_of_metadata_by_pillow_is_used(monkeypatch):
    opened = []
    monkeypatch.setattr(Image, 'open', lambda file, formats: opened.append(formats))
    for kind in ('jpeg', 'png', 'gif', 'webp', 'tiff'):
        assert image_size(io.BytesIO(FILES[kind])) == (WIDTH, HEIGHT)
    assert opened == []


def test_first_of_several_tags_of_a_tiff_counts_as_for_opencv():
    sizes = [(256, WIDTH), (256, 1), (257, HEIGHT)]
    others = [(258, 8), (259, 1), (262, 1), (273, 200), (277, 1), (278, HEIGHT)]
    tags = [*sizes, *others, (279, WIDTH * HEIGHT)]
    content = struct.pack('<2sHLH', b'II', 42, 8, len(tags))
    content += b''.join(struct.pack('<HHLL', tag, 4, 1, value) for tag, value in tags)
    content = content.ljust(200, b'\x00') + bytes(WIDTH * HEIGHT)
    assert image_size(io.BytesIO(content)) == (WIDTH, HEIGHT)
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert decoded.shape == (HEIGHT, WIDTH)
