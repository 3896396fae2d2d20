"""Reads the images that a command is given."""

import os
import stat
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import mmcv
import numpy as np
from PIL import Image

from nat_mm.errors import UserError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif', '.tiff', '.webp')

MEGAPIXELS = 50
"""Of the largest image that is decoded by default: a small file can hold a huge one.

A detector that finds 20 masks in an image of this size takes 3.3 GB, 0.2 GB of it for the drawing.
"""

_LARGEST_ASPECT = 1000
_BYTES_PER_PIXEL = 8  # four channels of 16 bits
_PILLOW = threading.Lock()


class UnreadableInput(Exception):  # noqa: N818 - it is reported, and the rest goes on
    """An input that cannot be read, or not to its end; the message says why."""


def read_picture(path: Path, *, max_megapixels: float = float('inf')) -> np.ndarray | None:
    """Reads an image as mmdet's and mmseg's datasets do.

    Args:
        path: The file.
        max_megapixels: Size of the largest image that is decoded.

    Returns:
        The image [height, width, 3], uint8, blue-green-red; None if the file is no image.

    Raises:
        UnreadableInput: The path is that of a pipe, device or folder, or the image is too large
            or too long and thin.
        OSError: It cannot be opened.
    """
    with _open_regular(path) as file:
        size = picture_size(file)
        if size is not None:
            check_size(*size, max_megapixels)
        if os.fstat(file.fileno()).st_size > max_megapixels * 1e6 * _BYTES_PER_PIXEL:
            raise UnreadableInput(f'too large a file for {max_megapixels:g} megapixels')
        content = file.read()
    if not content:
        return None
    try:
        image = mmcv.imfrombytes(content, flag='color')
    except Exception as error:
        # Decoders refuse a damaged file by various exceptions of their own.
        if type(error).__module__.split('.')[0] not in ('cv2', 'PIL'):
            raise
        return None
    if image is not None:
        check_size(image.shape[1], image.shape[0], max_megapixels)
    return image


def picture_size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height of an image as its header says, without decoding it.

    Args:
        file: The image; it is left where it began.

    Returns:
        The size in pixels; None if Pillow does not know the format. OpenCV, which decodes images,
        knows others, of which it refuses those beyond 2**30 pixels.
    """
    try:
        with _PILLOW:
            # Pillow's own limit is for those who decode with it.
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                return Image.open(file).size
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except Exception:
        # Its readers of headers refuse a damaged one by almost any exception.
        return None
    finally:
        file.seek(0)


def check_size(width: int, height: int, max_megapixels: float) -> None:
    """Checks that an image is small enough to be worked on.

    Raises:
        UnreadableInput: It is not, or so long that a pipeline that resizes the shorter side to a
            few hundred pixels would make it huge.
    """
    if width * height > max_megapixels * 1e6:
        raise UnreadableInput(
            f'{width} x {height} pixels are more than {max_megapixels:g} megapixels'
        )
    if max(width, height) > _LARGEST_ASPECT * min(width, height):
        raise UnreadableInput(
            f'one side of {width} x {height} pixels is more than {_LARGEST_ASPECT} times the other'
        )


def check_regular(status: os.stat_result) -> None:
    """Checks that something is a file, as a pipe waits for a writer and a device may never end.

    Raises:
        UnreadableInput: It is not.
    """
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableInput('not a file, but a folder, pipe, socket or device')


def _open_regular(path: Path) -> BinaryIO:
    check_regular(os.stat(path))  # opening a device may do something
    file = open(path, 'rb', opener=_open_without_waiting)  # noqa: SIM115 - the caller closes it
    try:
        check_regular(os.fstat(file.fileno()))
    except UnreadableInput:
        file.close()
        raise
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, 'O_NONBLOCK', 0))  # Windows has no such pipes


def check_not_overwritten(inputs: Iterable[Path], outputs: Iterable[Path]) -> None:
    """Checks that no result takes the place of an input.

    Args:
        inputs: Files that are read.
        outputs: Files that are going to be written, and folders that are going to be filled.

    Raises:
        UserError: One of them is also an input, or the folder of one.
    """
    taken = {os.path.realpath(place) for path in inputs for place in (path, path.parent)}
    for output in outputs:
        if os.path.realpath(output) in taken:
            raise UserError(
                f'the result {output} would overwrite an input: choose another --out-dir'
            )
