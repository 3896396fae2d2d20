"""Writes files and folders completely or not at all."""

import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nat_mm.errors import FileWriteError, UserError


def write_image(path: Path, image: np.ndarray) -> None:
    """Encodes an image by the suffix of its path and writes it completely or not at all.

    Args:
        path: File to write; its folder is created if necessary.
        image: [height, width, 3], uint8, BGR, or [height, width], uint8 or uint16.

    Raises:
        ValueError: If the suffix is not that of an image format, or the format does not support
            this size; JPEG allows at most 65500 pixels per side.
        FileWriteError: If the file cannot be written.
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
    path: Path,
    *,
    unfinished: Path | None = None,
    synchronized: bool = False,
    optional: bool = False,
) -> Iterator[Path]:
    """Yields a path to write to, and moves that file to its destination if the block succeeds.

    Args:
        path: Destination of the file; its folder is created if necessary.
        unfinished: Path to write to, in the same folder; None for `unfinished_path`.
        synchronized: Whether to sync the file to disk at the end, so that it survives a power
            failure.
        optional: Whether the block may write nothing, which leaves an earlier file as it is.

    Yields:
        The path to write to; its file is removed if the block raises.

    Raises:
        FileWriteError: If the block or the file system raises an `OSError`; it names the
            destination.
    """
    unfinished = unfinished or unfinished_path(path)
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            if synchronized:
                _synchronize(unfinished)
            if unfinished.exists() or not optional:
                os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    if synchronized:
        with suppress(OSError):  # not all file systems can; the file itself is safe
            _synchronize(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a folder to write to, and moves it to its destination if the block succeeds.

    A destination that exists is filled, in the order of the names, as it may be the working
    directory or a mount point.

    Args:
        path: Destination; its parents are created if necessary. If it exists, it must hold nothing
            of the same names at the end of the block.

    Yields:
        The folder to write to; it is removed if the block raises.

    Raises:
        FileWriteError: As for `whole_file`.
    """
    path = path.resolve()  # '.' has no name
    is_filled = path.exists()
    unfinished = unfinished_path(path / 'inside' if is_filled else path)
    with write_errors(path):
        try:
            unfinished.mkdir(parents=True)
            yield unfinished
            if is_filled:
                for each in sorted(unfinished.iterdir()):
                    each.rename(path / each.name)
            else:
                unfinished.rename(path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Makes an `OSError` inside the ``with`` block name the file that was to be written.

    Errors from writing name no file, and others a temporary one.

    Args:
        path: Destination of the file, or of a folder of files that is to appear as a whole.

    Raises:
        FileWriteError: In place of another `OSError`.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, FileExistsError | NotADirectoryError):
            place = next(each for each in path.parents if os.path.lexists(each))
            reason = f'{place} is not a folder'
        raise FileWriteError(error.errno, reason, str(path)) from error


def check_folder(folder: Path, *, name: str) -> None:
    """Checks that files can be written to a folder, or that it can be created.

    Args:
        folder: The folder; it need not exist.
        name: What it is called in messages, such as ``--out-dir``.

    Raises:
        UserError: It or a parent is a file, or not writable.
    """
    # Before Python 3.14, `Path.exists` raises PermissionError below a folder that nobody may enter.
    existing = next(filter(os.path.exists, (folder, *folder.absolute().parents)))
    if not existing.is_dir():
        raise UserError(f'{name} {folder}: {existing} is a file, not a folder')
    if not os.access(existing, os.W_OK):
        raise UserError(f'{name} {folder}: {existing} is not writable')


def check_is_text(path: str | Path, *, name: str) -> None:
    """Checks that the name of a file or folder is text in Python's encoding, usually UTF-8.

    Some libraries require it.

    Args:
        path: The file or folder.
        name: What it is called in messages, such as ``work dir``.

    Raises:
        UserError: It is not.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        encoding = sys.getfilesystemencoding().upper()
        raise UserError(f'{name} {path}: the name must be valid {encoding}') from error


def _synchronize(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unfinished_path(path: Path) -> Path:
    """Returns a temporary path for a file or folder that is being written.

    Args:
        path: Its destination.

    Returns:
        A hidden path in the same folder, with the same suffix and a different name each time. The
        name is short, since that of ``path`` may already have the maximum length.
    """
    return path.with_name(f'.unfinished.{secrets.token_hex(4)}{path.suffix}')
