"""Writes files whole or not at all."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np


def write_image(path: Path, image: np.ndarray) -> None:
    """Encodes an image by the suffix of its path and writes it, whole or not at all.

    Args:
        path: File to write; its folder is made if need be.
        image: [height, width, 3], uint8, BGR, or [height, width], uint8 or uint16.

    Raises:
        ValueError: The format has no images of this size: JPEG up to 65500 pixels on either side.
    """
    write_bytes(path, encode_image(path.suffix, image))


def encode_image(suffix: str, image: np.ndarray) -> bytes:
    """The content of an image file; see `write_image`."""
    try:
        encoded, content = cv2.imencode(suffix, image)
    except cv2.error:
        encoded = False
    if not encoded:
        height, width = image.shape[:2]
        raise ValueError(f'{width} x {height} pixels do not fit in a file of type {suffix}')
    return content.tobytes()


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, whole or not at all, and makes its folder if need be."""
    with whole_file(path) as unfinished:
        unfinished.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, whole or not at all.

    Args:
        path: File to write; its folder is made if need be.
        value: What to write.
    """
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(value), encoding='utf-8')


@contextmanager
def whole_file(
    path: Path, *, unfinished: Path | None = None, synchronized: bool = False
) -> Iterator[Path]:
    """Gives a path to write to, and puts that file in its place when the ``with`` block ends well.

    Args:
        path: The file's place; its folder is made if need be.
        unfinished: Path to write to, in the same folder; None for `unfinished_path`.
        synchronized: Whether the file has to be on the disk by the end, so that a power cut cannot
            take it away any more.

    Yields:
        The path to write to; what is there is removed when the block raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished or unfinished_path(path)
    try:
        yield unfinished
        if synchronized:
            _synchronize(unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    if synchronized:
        with suppress(OSError):  # not every file system can; the file itself is safe by now
            _synchronize(path.parent)


def _synchronize(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unfinished_path(path: Path) -> Path:
    """Where a file can be while it is being written.

    Args:
        path: Where it goes.

    Returns:
        A hidden file beside it, of the same suffix. Another one each time, and its name is short,
        as that of ``path`` may have the greatest length already.
    """
    return path.with_name(f'.unfinished.{secrets.token_hex(4)}{path.suffix}')
