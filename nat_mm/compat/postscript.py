"""Pillow has Ghostscript run the program that an EPS file is, whatever the file's suffix.

mmcv opens label images with Pillow by default, and images if ``imdecode_backend='pillow'``.
"""

from pathlib import Path
from types import ModuleType
from typing import IO

from PIL import Image

from nat_mm.compat import NOT_REPORTED
from nat_mm.compat.removed_names import ModuleWithNames

BROKEN_IN = {'mmcv': '<2.4'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmcv.image.io',)


def repair(module: ModuleType) -> None:
    """Lets the module open images by `open_image`.

    Args:
        module: ``mmcv.image.io``.
    """
    module.Image = ModuleWithNames(module.Image, open=open_image)


def open_image(file: str | Path | IO[bytes]) -> Image.Image:
    """Opens an image with Pillow, which decodes it later, without running other programs.

    Args:
        file: The file or its path.

    Returns:
        The image.

    Raises:
        PIL.UnidentifiedImageError: It is in none of Pillow's formats, or EPS.
        OSError: It cannot be opened.
    """
    Image.init()  # which registers the formats
    return Image.open(file, formats=[name for name in Image.ID if name != 'EPS'])
