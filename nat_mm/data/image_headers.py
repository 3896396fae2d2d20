"""Reads the headers of images without decoding them."""

import functools
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import mmcv
import numpy as np
from PIL import Image, UnidentifiedImageError

from nat_mm.compat.postscript import open_image
from nat_mm.data.findings import Finding
from nat_mm.data.progress import Progress
from nat_mm.data.sources import DataSource
from nat_mm.inference.images import UnreadableInput, check_regular

_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
# Pillow's names of formats whose EXIF orientation only some releases of OpenCV apply.
_TURNED_BY_SOME_OPENCV = ('WEBP', 'AVIF')
# Pillow's names of formats, and of the compressions of TIFF; JPEG 2000 and WebP can be lossless.
_JPEG = ('JPEG', 'MPO')
_JPEG_IN_TIFF = ('jpeg', 'tiff_jpeg')
_STEP = 1000

MOST_HEADERS = 50_000
"""Maximum number of headers read per dataset, evenly spread: all of ImageNet would take minutes."""


@dataclass(frozen=True)
class ImageHeader:
    """The content of an image's header.

    Attributes:
        width: Width of the stored image in pixels.
        height: Height of the stored image in pixels.
        mode: Pillow's name for channels and bits: ``L`` for one channel of 8 bits, ``P`` for
            indices into a palette, ``1`` for one bit, ``I;16`` for one channel of 16 bits, ``RGB``,
            ``RGBA``.
        is_sideways: Whether OpenCV and mmcv rotate the image by 90 degrees, as EXIF says, unless
            told to ignore the orientation.
        is_jpeg: Whether the pixels are compressed as JPEG, which changes their values.
    """

    width: int
    height: int
    mode: str
    is_sideways: bool = False
    is_jpeg: bool = False

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height of the image as read by mmcv, with the EXIF orientation applied."""
        size = self.width, self.height
        return size[::-1] if self.is_sideways else size


def read_header(path: str | Path) -> ImageHeader:
    """Reads the header of an image; thread-safe.

    Args:
        path: The file.

    Returns:
        The header.

    Raises:
        UnreadableInput: The file does not exist, cannot be opened, or is not an image in a format
            that Pillow knows; the message says which, but does not contain the path.
    """
    try:
        check_regular(os.stat(path))
        with open(path, 'rb') as file, warnings.catch_warnings():
            # Reading only the header of a huge image is harmless.
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            image = open_image(file)
            # For a PNG without EXIF, getexif() would decode the whole image.
            has_exif = 'exif' in image.info or image.format == 'TIFF'
            orientation = image.getexif().get(_ORIENTATION) if has_exif else None
            is_sideways = orientation in _SIDEWAYS and _is_turned_by_opencv(image.format)
            return ImageHeader(*image.size, image.mode, is_sideways, is_jpeg(image))
    except FileNotFoundError as error:
        raise UnreadableInput('does not exist') from error
    except UnidentifiedImageError as error:
        raise UnreadableInput('is not an image') from error
    except UnreadableInput as error:
        raise UnreadableInput(f'is {error}') from error
    except OSError as error:
        raise UnreadableInput(f'cannot be read: {error.strerror or error}') from error
    except Exception as error:
        # Pillow may raise almost any exception on a damaged header.
        raise UnreadableInput(f'has a damaged header: {error}') from error


def is_jpeg(image: Image.Image) -> bool:
    """Whether the pixels of an opened file are compressed as JPEG, whatever its name."""
    return image.format in _JPEG or image.info.get('compression') in _JPEG_IN_TIFF


@functools.cache
def _is_turned_by_opencv(image_format: str) -> bool:
    """Whether the installed OpenCV applies the EXIF orientation to images of a format.

    For WebP, OpenCV 5.0 does and 4.12 does not; for AVIF, neither does.
    """
    if image_format not in _TURNED_BY_SOME_OPENCV:
        return True
    exif = Image.Exif()
    exif[_ORIENTATION] = _SIDEWAYS[1]
    file = io.BytesIO()
    Image.new('RGB', (16, 8)).save(file, image_format, exif=exif)
    loaded = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    return loaded is not None and loaded.shape[:2] == (16, 8)


def try_header(path: str | Path) -> ImageHeader | str | None:
    """Reads the header of a file that may not be an image; thread-safe.

    Args:
        path: The file.

    Returns:
        The header, or why the file cannot be loaded: the part of the message after the path, such
        as ``is not an image``. None if only OpenCV, which knows other formats, can decode it.
    """
    try:
        return read_header(path)
    except UnreadableInput as error:
        is_unread = isinstance(error.__cause__, OSError | UnreadableInput)
        if not is_unread or isinstance(error.__cause__, UnidentifiedImageError):
            with suppress(Exception):
                content = Path(path).read_bytes()
                if mmcv.imfrombytes(content, flag='unchanged', backend='cv2') is not None:
                    return None
        return str(error)


def read_headers(
    paths: Sequence[str], progress: Progress, what: str
) -> Iterator[ImageHeader | str | None]:
    """Reads the headers of many images.

    Args:
        paths: The files.
        progress: Called every now and then.
        what: Description that is passed to ``progress``.

    Yields:
        The result of `try_header` for each file.
    """
    for number, path in enumerate(paths):
        if number % _STEP == 0:
            progress(what, number, len(paths))
        yield try_header(path)
    progress(what, len(paths), len(paths))


def find_image_problem(path: str | Path) -> str | None:
    """Describes why a file cannot be loaded as an image, like `try_header`; None if it can."""
    header = try_header(path)
    return header if isinstance(header, str) else None


def find_unreadable_images(source: DataSource, paths: Sequence[Path]) -> Iterator[Finding]:
    """Reads the headers of a classifier's images; of more than `MOST_HEADERS`, a sample.

    Args:
        source: The dataset; skipped if a user's own transform loads its images.
        paths: The images.

    Yields:
        The first image that cannot be read, and the number of others.
    """
    if source.transforms and source.image_loader is None:
        return
    sample = paths[:: -(-len(paths) // MOST_HEADERS) or 1]
    with ThreadPoolExecutor(8) as pool:
        problems = list(pool.map(find_image_problem, sample))
    bad = [(path, problem) for path, problem in zip(sample, problems, strict=True) if problem]
    if bad:
        path, problem = bad[0]
        more = f' (and {len(bad) - 1} more images cannot be read)' if len(bad) > 1 else ''
        hint = ''
        if '\\' in str(path) and os.sep == '/':
            hint = ': write / in the list, not \\'
        yield Finding(f'{path} {problem}{hint}{more}')
