"""Reads what somebody dropped on the page."""

from pathlib import Path

import cv2
from PIL import Image, UnidentifiedImageError

from nat_mm.backbones.base import SMALLEST_INPUT
from nat_mm.cli.inputs import Frame
from nat_mm.cli.pictures import read_picture

MEGABYTES = 20
"""Of the largest file that is taken."""

MEGAPIXELS = 50
"""Of the largest picture that is decoded: a small file can hold a huge one."""

LONGEST_SIDE = 1333
"""Of a picture, in pixels, as the model gets it; larger ones are made smaller."""


class UploadError(Exception):
    """A file that is no picture for the page; the message is for its user."""


def read_upload(path: Path) -> Frame:
    """Reads a picture and makes it small enough for a page.

    Args:
        path: The uploaded file.

    Returns:
        The picture, neither side above `LONGEST_SIDE`.

    Raises:
        UploadError: It is no picture, damaged, or too large or too small.
    """
    name = path.name
    try:
        # Reads no more than the header; refuses pictures far beyond the limit by an error.
        with Image.open(path) as header:
            width, height = header.size
    except Image.DecompressionBombError as error:
        raise _too_large(name) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise _no_picture(name) from error
    if width * height > MEGAPIXELS * 10**6:
        raise _too_large(name)
    image = read_picture(path)
    if image is None:
        raise _no_picture(name)
    factor = LONGEST_SIDE / max(image.shape[:2])
    if factor < 1:
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    if min(image.shape[:2]) < SMALLEST_INPUT:
        raise UploadError(
            f'{name} has {width} x {height} pixels, which is too narrow: a model needs at least '
            f'{SMALLEST_INPUT} on the shorter side when the longer one has up to {LONGEST_SIDE}.'
        )
    return Frame(image, path.stem, name)


def _no_picture(name: str) -> UploadError:
    return UploadError(
        f'{name} is not a picture that can be read here. JPEG, PNG, WebP, BMP and TIFF can.'
    )


def _too_large(name: str) -> UploadError:
    return UploadError(f'{name} has more than the {MEGAPIXELS} megapixels that are taken here.')
