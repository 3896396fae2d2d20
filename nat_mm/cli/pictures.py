"""Reads the pictures that a command is given."""

import os
from collections.abc import Iterable
from pathlib import Path

import mmcv
import numpy as np

from nat_mm.cli.errors import CommandError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif', '.tiff', '.webp')


def read_picture(path: Path) -> np.ndarray | None:
    """Reads a picture as mmdet's and mmseg's data sets do.

    Args:
        path: The file.

    Returns:
        The picture [height, width, 3], uint8, blue-green-red; None if the file is no picture.
    """
    content = path.read_bytes()
    if not content:
        return None
    try:
        return mmcv.imfrombytes(content, flag='color')
    except Exception as error:
        # Decoders refuse a damaged file by various exceptions of their own.
        if type(error).__module__.split('.')[0] not in ('cv2', 'PIL'):
            raise
        return None


def check_not_overwritten(inputs: Iterable[Path], outputs: Iterable[Path]) -> None:
    """Checks that no result takes the place of an input.

    Args:
        inputs: Files that are read.
        outputs: Files that are going to be written, and folders that are going to be filled.

    Raises:
        CommandError: One of them is also an input, or the folder of one.
    """
    taken = {os.path.realpath(place) for path in inputs for place in (path, path.parent)}
    for output in outputs:
        if os.path.realpath(output) in taken:
            raise CommandError(
                f'the result {output} would overwrite an input: choose another --out-dir'
            )
