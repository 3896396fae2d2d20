"""Reads the sizes of images from their headers, in a short time for any content.

Files from strangers are sized before anything else is done with them. Pillow would also parse their
metadata, where comments of a GIF, chunks of a PNG or tags of a TIFF can keep it busy for minutes.
"""

import struct
import threading
from typing import Any, BinaryIO

from PIL import Image

_MOST_READS = 10_000
"""How often a header is read from; photographs with all their metadata need a few hundred times."""

_PILLOW_FORMATS = ('BMP', 'PPM', 'JPEG2000', 'SUN', 'AVIF')
_PILLOW = threading.Lock()

_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_JPEG_WITHOUT_CONTENT = {0x00, 0x01, *range(0xD0, 0xD9), 0xFF}
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9

_TIFF, _BIG_TIFF = 42, 43
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TIFF_NUMBERS = {1: 'B', 3: 'H', 4: 'L', 16: 'Q'}
_TIFF_MOST_TAGS = 65535


def image_size(file: BinaryIO) -> tuple[int, int] | None:
    """Reads width and height of an image from its header, without decoding it.

    Args:
        file: The image; rewound to its start afterwards.

    Returns:
        The stored size in pixels, before any rotation by EXIF. None if the header is damaged, or
        the format is not JPEG, PNG, GIF, TIFF, WebP, BMP, PPM and its relatives, JPEG 2000, Sun
        raster or AVIF. OpenCV, which decodes the images, knows others, but refuses images of more
        than 2**30 pixels.
    """
    try:
        file.seek(0)
        start = file.read(30)
        if start.startswith(b'\xff\xd8'):
            return _jpeg_size(file)
        if start.startswith(b'\x89PNG\r\n\x1a\n'):
            # IHDR is always the first chunk.
            return struct.unpack('>LL', start[16:24]) if start[12:16] == b'IHDR' else None
        if start.startswith((b'GIF87a', b'GIF89a')):
            return struct.unpack('<HH', start[6:10])
        if start.startswith(b'RIFF') and start[8:12] == b'WEBP':
            return _webp_size(start)
        if start.startswith((b'II', b'MM')):
            return _tiff_size(file, start)
        return _size_by_pillow(file)
    except Exception:
        # Pillow may raise almost any exception on a damaged header.
        return None
    finally:
        file.seek(0)


def _jpeg_size(file: BinaryIO) -> tuple[int, int] | None:
    """Finds the first frame, skipping what is between segments as libjpeg does."""
    file.seek(2)
    after_ff = False
    for _ in range(_MOST_READS):
        marker = file.read(1)[0]
        if not after_ff or marker in _JPEG_WITHOUT_CONTENT:
            after_ff = marker == 0xFF
            continue
        if marker in (_JPEG_SCAN, _JPEG_END):
            return None
        (length,) = struct.unpack('>H', file.read(2))
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack('>xHH', file.read(5))
            return width, height
        if length < 2:
            return None
        file.seek(length - 2, 1)
        after_ff = False
    return None


def _webp_size(start: bytes) -> tuple[int, int] | None:
    """Reads the first chunk, which is the image or describes the canvas."""
    kind, content = start[12:16], start[20:]
    if kind == b'VP8X':
        low_width, high_width, low_height, high_height = struct.unpack('<4xHBHB', content)
        return 1 + low_width + (high_width << 16), 1 + low_height + (high_height << 16)
    if kind == b'VP8L' and content[:1] == b'\x2f':
        (bits,) = struct.unpack('<L', content[1:5])
        return 1 + bits % 2**14, 1 + (bits >> 14) % 2**14
    if kind == b'VP8 ' and content[3:6] == b'\x9d\x01\x2a':
        width, height = struct.unpack('<HH', content[6:10])
        return width % 2**14, height % 2**14
    return None


def _tiff_size(file: BinaryIO, start: bytes) -> tuple[int, int] | None:
    """Reads the tags of the first page, of BigTIFF as well, without what they point to."""
    order = '<' if start.startswith(b'II') else '>'
    (version,) = struct.unpack_from(order + 'H', start, 2)
    if version == _TIFF:
        offset, count, entry = order + '4xL', order + 'H', struct.Struct(order + 'HHL4s')
    elif version == _BIG_TIFF:
        offset, count, entry = order + '8xQ', order + 'Q', struct.Struct(order + 'HHQ8s')
    else:
        return None
    file.seek(*struct.unpack_from(offset, start))
    (tags,) = struct.unpack(count, file.read(struct.calcsize(count)))
    entries = file.read(entry.size * min(tags, _TIFF_MOST_TAGS))
    sizes: dict[int, int] = {}
    for tag, kind, _, value in entry.iter_unpack(entries):
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT):
            # libtiff, too, uses the first of several.
            sizes.setdefault(tag, struct.unpack_from(order + _TIFF_NUMBERS[kind], value)[0])
    return sizes[_TIFF_WIDTH], sizes[_TIFF_HEIGHT]


def _size_by_pillow(file: BinaryIO) -> tuple[int, int]:
    """Reads the size with those of Pillow's parsers that `_Header` bounds."""
    header: Any = _Header(file)
    with _PILLOW:
        # Pillow's own limit is meant for decoding.
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(header, formats=_PILLOW_FORMATS).size
        finally:
            Image.MAX_IMAGE_PIXELS = limit


class _Header:
    """A file that can be read only `_MOST_READS` times."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._reads = 0
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        self._reads += 1
        if self._reads > _MOST_READS:
            raise OSError('a header with too many parts')
        return self._file.read(size)
