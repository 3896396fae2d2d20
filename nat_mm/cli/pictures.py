"""Finds and reads the pictures that a command is given."""

import os
from collections.abc import Iterable
from pathlib import Path

import mmcv
import numpy as np

from nat_mm.cli.errors import CommandError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif', '.tiff', '.webp')


def find_pictures(inputs: Iterable[str]) -> list[Path]:
    """Lists picture files.

    Args:
        inputs: Files, taken whatever their names are, and folders, whose files with the suffix of
            a picture are taken in order of their names.

    Returns:
        The files; no two have the same name without suffix.

    Raises:
        CommandError: An input does not exist, a folder holds no picture, or two pictures would
            have results of the same name.
    """
    pictures = []
    for path in map(Path, inputs):
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
            if not found:
                raise CommandError(f'no pictures ({", ".join(SUFFIXES)}) in the folder {path}')
            pictures += found
        elif path.is_file():
            pictures.append(path)
        else:
            raise CommandError(f'input not found: {path}')
    by_name = {}
    for picture in pictures:
        other = by_name.setdefault(picture.stem, picture)
        if other is not picture:
            raise CommandError(
                f'{other} and {picture} would both have results named {picture.stem}: '
                'predict them into different folders'
            )
    return pictures


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


def check_not_overwritten(pictures: Iterable[Path], outputs: Iterable[Path]) -> None:
    """Checks that no result takes the place of an input.

    Args:
        pictures: Files that are read.
        outputs: Files that are going to be written.

    Raises:
        CommandError: One of them is also an input.
    """
    inputs = {os.path.realpath(picture) for picture in pictures}
    for output in outputs:
        if os.path.realpath(output) in inputs:
            raise CommandError(
                f'the result {output} would overwrite an input: choose another --out-dir'
            )
