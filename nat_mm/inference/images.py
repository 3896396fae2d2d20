"""Reads the images that are passed to a command."""

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from mmengine.structures import BaseDataElement

from nat_mm.errors import UserError
from nat_mm.inference.image_sizes import image_size

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif', '.tiff', '.webp')

MEGAPIXELS = 50
"""Size of the largest image that is decoded by default, as a small file can contain a huge one.

A detector that finds 20 masks in an image of this size takes 3.3 GB, 0.2 GB of it for the drawing.
"""

_LARGEST_ASPECT = 1000
_BYTES_PER_PIXEL = 8  # four channels of 16 bits
_PIXELS_OF_A_PERCENTILE = 1_000_000


class UnreadableInput(Exception):  # noqa: N818 - it is reported, and the rest goes on
    """An input cannot be read, or only partly; the message says why."""


def read_image_file(path: Path, *, max_megapixels: float = float('inf')) -> bytes:
    """Reads an image file without decoding it, after checking its size.

    Args:
        path: The file.
        max_megapixels: Size of the largest image that may be decoded.

    Returns:
        The content of the file.

    Raises:
        UnreadableInput: The path is a pipe, device or folder, or the image is too large or too
            elongated.
        OSError: The file cannot be opened.
    """
    with _open_regular(path) as file:
        size = image_size(file)
        if size is not None:
            check_size(*size, max_megapixels)
        check_bytes(os.fstat(file.fileno()).st_size, max_megapixels)
        return file.read()


def check_size(width: int, height: int, max_megapixels: float) -> None:
    """Checks that an image is small enough to be processed.

    Raises:
        UnreadableInput: It is too large, or so elongated that a pipeline that resizes the shorter
            side to a few hundred pixels would make it huge.
    """
    if width * height > max_megapixels * 1e6:
        raise UnreadableInput(
            f'{width} x {height} pixels are more than {max_megapixels:g} megapixels'
        )
    if max(width, height) > _LARGEST_ASPECT * min(width, height):
        raise UnreadableInput(
            f'one side of {width} x {height} pixels is more than {_LARGEST_ASPECT} times the other'
        )


def check_bytes(count: int, max_megapixels: float) -> None:
    """Checks that a file or an image takes no more bytes than the largest image would.

    Raises:
        UnreadableInput: It takes more.
    """
    if count > max_megapixels * 1e6 * _BYTES_PER_PIXEL:
        raise UnreadableInput(f'too large a file for {max_megapixels:g} megapixels')


def check_regular(status: os.stat_result) -> None:
    """Checks for a regular file, as a pipe waits for a writer and a device may never end.

    Raises:
        UnreadableInput: It is not a regular file.
    """
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableInput('not a file, but a folder, pipe, socket or device')


def _open_regular(path: Path) -> BinaryIO:
    check_regular(os.stat(path))  # opening a device may have side effects
    file = open(path, 'rb', opener=_open_without_waiting)  # noqa: SIM115 - the caller closes it
    try:
        check_regular(os.fstat(file.fileno()))
    except UnreadableInput:
        file.close()
        raise
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def to_drawing(image: np.ndarray) -> np.ndarray:
    """Converts an image of any kind to one to draw on.

    Args:
        image: [height, width] or [height, width, channels], numbers. The first three of four or
            more channels are blue, green and red; of two channels, the first is shown.

    Returns:
        [height, width, 3], uint8, BGR; the image itself if it already is such an array. Values of
        other types are stretched so that only the darkest and brightest half percent are clipped.

    Raises:
        UnreadableInput: The shape is not that of an image.
    """
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or 0 in image.shape:
        raise UnreadableInput(f'its shape {list(image.shape)} is not that of an image')
    image = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    if image.dtype != np.uint8:
        image = _stretch(image.astype(np.float32))
    if image.shape[2] == 1:
        return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image)


def _stretch(values: np.ndarray) -> np.ndarray:
    finite = np.isfinite(values)
    values = np.where(finite, values, 0)
    some = values[finite][:: max(1, values.size // _PIXELS_OF_A_PERCENTILE)]
    low, high = np.percentile(some, (0.5, 99.5)) if some.size else (0, 0)
    if high <= low:  # a uniform image, except for a few pixels at most
        low, high = values.min(), values.max()
    span = max(float(high) - float(low), float(np.finfo(np.float32).tiny))
    return np.clip((values - low) / span * 255, 0, 255).round().astype(np.uint8)


def list_paths(sample: Mapping[str, Any] | BaseDataElement, *names: str) -> list[str]:
    """Lists the files of a sample, which has several images if its model compares them.

    Args:
        sample: Entry of a dataset, or a data sample.
        names: What the files are called in it, such as ``img_path``.

    Returns:
        The paths, in the order of the names.
    """
    paths: list[Any] = []
    for name in names:
        value = sample.get(name)
        paths += value if isinstance(value, list | tuple) else [value]
    return [path for path in paths if path and isinstance(path, str)]


def check_not_overwritten(inputs: Iterable[Path], outputs: Iterable[Path]) -> None:
    """Checks that no result overwrites an input.

    Args:
        inputs: Files that are read.
        outputs: Files that will be written and folders that will be filled.

    Raises:
        UserError: An output is also an input or the folder of one.
    """
    taken = {os.path.realpath(place) for path in inputs for place in (path, path.parent)}
    for output in outputs:
        if os.path.realpath(output) in taken:
            raise UserError(f'the result {output} would overwrite an input: choose another folder')
