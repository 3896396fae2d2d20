"""Writes files completely or not at all."""

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
    """Encodes an image by the suffix of its path and writes it completely or not at all.

    Args:
        path: File to write; its folder is created if necessary.
        image: [height, width, 3], uint8, BGR, or [height, width], uint8 or uint16.

    Raises:
        ValueError: If the suffix is not that of an image format, or the format does not support
            this size; JPEG allows at most 65500 pixels per side.
    """
    write_bytes(path, encode_image(path.suffix, image))


def encode_image(suffix: str, image: np.ndarray) -> bytes:
    """Returns the content of an image file; see `write_image`."""
    if not cv2.haveImageWriter(f'image{suffix}'):
        raise ValueError(f"{suffix!r} is no suffix of an image file, such as '.jpg' or '.png'")
    try:
        encoded, content = cv2.imencode(suffix, image)
    except cv2.error:
        encoded = False
    if not encoded:
        height, width = image.shape[:2]
        raise ValueError(f'{width} x {height} pixels do not fit in a file of type {suffix}')
    return content.tobytes()


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file completely or not at all, and creates its folder if necessary."""
    with whole_file(path) as unfinished:
        unfinished.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON completely or not at all.

    Args:
        path: File to write; its folder is created if necessary.
        value: What to write.
    """
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(value), encoding='utf-8')


@contextmanager
def whole_file(
    path: Path, *, unfinished: Path | None = None, synchronized: bool = False
) -> Iterator[Path]:
    """Yields a path to write to, and moves that file to its destination if the block succeeds.

    Args:
        path: Destination of the file; its folder is created if necessary.
        unfinished: Path to write to, in the same folder; None for `unfinished_path`.
        synchronized: Whether to sync the file to disk at the end, so that it survives a power
            failure.

    Yields:
        The path to write to; its file is removed if the block raises.
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
        with suppress(OSError):  # not all file systems can; the file itself is safe
            _synchronize(path.parent)


def _synchronize(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unfinished_path(path: Path) -> Path:
    """Returns a temporary path for a file that is being written.

    Args:
        path: Destination of the file.

    Returns:
        A hidden file in the same folder, with the same suffix and a different name each time. The
        name is short, since that of ``path`` may already have the maximum length.
    """
    return path.with_name(f'.unfinished.{secrets.token_hex(4)}{path.suffix}')
