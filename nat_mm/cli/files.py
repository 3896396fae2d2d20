"""Writes files whole or not at all."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def write_image(path: Path, image: np.ndarray) -> None:
    """Encodes an image by the suffix of its path and writes it, whole or not at all.

    Args:
        path: File to write; its folder is made if need be.
        image: [height, width, 3], uint8, blue-green-red, or [height, width], uint8 or uint16.
    """
    _, content = cv2.imencode(path.suffix, image)
    with whole_file(path) as unfinished:
        unfinished.write_bytes(content.tobytes())


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, whole or not at all.

    Args:
        path: File to write; its folder is made if need be.
        value: What to write.
    """
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(value), encoding='utf-8')


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a path to write to, and puts that file in its place when the ``with`` block ends well.

    Args:
        path: The file's place; its folder is made if need be.

    Yields:
        A hidden file beside it, of the same suffix; removed when the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_path(path)
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def unfinished_path(path: Path) -> Path:
    """Where a file is while it is being written.

    Args:
        path: Where it goes.

    Returns:
        A hidden file beside it, of the same suffix.
    """
    return path.with_name(f'.unfinished.{path.name}')
