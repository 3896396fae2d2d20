"""Reads the headers of images, without decoding them."""

import functools
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import mmcv
import numpy as np
from PIL import Image, UnidentifiedImageError

from nat_mm.data.progress import Progress, no_progress
from nat_mm.inference.images import UnreadableInput, check_regular

_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)
# Pillow's names of the formats whose orientation OpenCV reads only in some releases.
_TURNED_BY_SOME_OPENCV = ('WEBP', 'AVIF')
_STEP = 1000


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image says.

    Attributes:
        width: In pixels, of the image as it is stored.
        height: In pixels, of the image as it is stored.
        mode: Pillow's name for channels and bits: ``L`` one channel of 8 bits, ``P`` indices of a
            palette, ``1`` one bit, ``I;16`` one channel of 16 bits, ``RGB``, ``RGBA``.
        is_sideways: Whether EXIF says that the image is shown turned by 90 degrees, as OpenCV and
            mmcv read it unless told to ignore that.
    """

    width: int
    height: int
    mode: str
    is_sideways: bool = False

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height as mmcv reads the image, with EXIF's orientation applied."""
        size = self.width, self.height
        return size[::-1] if self.is_sideways else size


def read_header(path: str | Path) -> ImageHeader:
    """Reads the header of an image. Several threads may do so at once.

    Args:
        path: The file.

    Returns:
        What it says.

    Raises:
        UnreadableInput: The file does not exist, cannot be opened, or is no image that Pillow
            knows; the message says which of these, not the path.
    """
    try:
        check_regular(os.stat(path))
        with open(path, 'rb') as file, warnings.catch_warnings():
            # The header of a huge image is as small as any.
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            image = Image.open(file)
            # Asked for EXIF, Pillow would decode a PNG that has none.
            has_exif = 'exif' in image.info or image.format == 'TIFF'
            orientation = image.getexif().get(_ORIENTATION) if has_exif else None
            is_sideways = orientation in _SIDEWAYS and _is_turned_by_opencv(image.format)
            return ImageHeader(*image.size, image.mode, is_sideways)
    except FileNotFoundError as error:
        raise UnreadableInput('does not exist') from error
    except UnidentifiedImageError as error:
        raise UnreadableInput('is not an image') from error
    except UnreadableInput as error:
        raise UnreadableInput(f'is {error}') from error
    except OSError as error:
        raise UnreadableInput(f'cannot be read: {error.strerror or error}') from error
    except Exception as error:
        # Pillow's readers of headers refuse a damaged one by almost any exception.
        raise UnreadableInput(f'has a damaged header: {error}') from error


@functools.cache
def _is_turned_by_opencv(image_format: str) -> bool:
    """Whether the installed OpenCV turns images of a format as EXIF says.

    OpenCV 5.0 turns WebP and 4.12 does not; AVIF is turned by neither.
    """
    if image_format not in _TURNED_BY_SOME_OPENCV:
        return True
    exif = Image.Exif()
    exif[_ORIENTATION] = _SIDEWAYS[1]
    file = io.BytesIO()
    Image.new('RGB', (16, 8)).save(file, image_format, exif=exif)
    loaded = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    return loaded is not None and loaded.shape[:2] == (16, 8)


def _read(path: str) -> ImageHeader | str:
    try:
        return read_header(path)
    except UnreadableInput as error:
        return str(error)


def read_headers(
    paths: Sequence[str], progress: Progress = no_progress, what: str = 'images'
) -> Iterator[ImageHeader | str]:
    """Reads the headers of many images.

    Args:
        paths: The files.
        progress: Called every now and then.
        what: What progress is called with.

    Yields:
        For each, what its header says, or why it cannot be read: see `read_header`.
    """
    for number, path in enumerate(paths):
        if number % _STEP == 0:
            progress(what, number, len(paths))
        yield _read(path)
    progress(what, len(paths), len(paths))


def find_image_problem(path: str | Path) -> str | None:
    """Says why a file cannot be loaded as an image. Several threads may do so at once.

    Args:
        path: The file.

    Returns:
        What follows its path in a message, such as ``is not an image``; None if its header can be
        read, or OpenCV decodes it, which knows other formats than Pillow.
    """
    try:
        read_header(path)
    except UnreadableInput as error:
        if isinstance(error.__cause__, OSError) and not isinstance(
            error.__cause__, UnidentifiedImageError
        ):
            return str(error)
        try:
            image = mmcv.imfrombytes(Path(path).read_bytes(), flag='unchanged', backend='cv2')
        except Exception:
            image = None
        return str(error) if image is None else None
    return None
