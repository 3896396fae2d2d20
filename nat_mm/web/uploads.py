"""Receives and reads the files that visitors drop on the page."""

import secrets
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from nat_mm.backbones.checks import SMALLEST_INPUT
from nat_mm.inference.image_sizes import image_size
from nat_mm.inference.images import UnreadableInput
from nat_mm.inference.inputs import Frame
from nat_mm.inference.loading import ImageLoader
from nat_mm.web.bounds import (
    FILE_MEGABYTES,
    LONGEST_SIDE,
    MEGAPIXELS,
    SHOWN_NAME,
    WAITING_FILES,
    WAITING_MEGABYTES,
    WAITING_SECONDS,
)

_CROWD = 'Too many files are waiting for a model. Please try again in a minute.'


class RefusalError(Exception):
    """The page refuses a request; the message is for the visitor."""


class UploadError(RefusalError):
    """A file is not an image that the page accepts."""


@dataclass
class _Upload:
    path: Path
    size: int
    started: float


class Uploads:
    """Files that visitors have sent and no model has read yet.

    Each gets a generated name and is removed when it is read. Thus, only files that were sent can
    be named, and none is read twice.

    Args:
        folder: Folder that contains only these files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._uploads: dict[str, _Upload] = {}
        self._lock = threading.Lock()

    def begin(self) -> str:
        """Registers a new upload, after removing those that have waited too long.

        Returns:
            Its name.

        Raises:
            RefusalError: There are too many uploads.
        """
        name = secrets.token_hex(16)
        with self._lock:
            oldest = time.monotonic() - WAITING_SECONDS
            late = [other for other, upload in self._uploads.items() if upload.started < oldest]
        for other in late:
            self.remove(other)
        with self._lock:
            if len(self._uploads) >= WAITING_FILES:
                raise RefusalError(_CROWD)
            upload = self._uploads[name] = _Upload(self.folder / name, 0, time.monotonic())
            upload.path.touch()
        return name

    def grow(self, name: str, content: bytes) -> None:
        """Appends to an upload that is being received.

        Args:
            name: Its name.
            content: The next bytes.

        Raises:
            UploadError: The upload is too large.
            RefusalError: All uploads together are too large, or this one was removed because it
                took too long.
        """
        with self._lock:
            upload = self._uploads.get(name)
            if upload is None:
                raise RefusalError('The file took too long to arrive. Please drop it again.')
            if upload.size + len(content) > FILE_MEGABYTES * 10**6:
                raise UploadError(f'The file has more than {FILE_MEGABYTES} MB.')
            total = sum(other.size for other in self._uploads.values())
            if total + len(content) > WAITING_MEGABYTES * 10**6:
                raise RefusalError(_CROWD)
            upload.size += len(content)
            # Write while holding the lock: after a removal, this would create the file again.
            with upload.path.open('ab') as file:
                file.write(content)

    def path(self, name: object) -> Path | None:
        """Returns the path of the upload with that name; None if there is none."""
        upload = self._uploads.get(name) if isinstance(name, str) else None
        return None if upload is None else upload.path

    def remove(self, name: str) -> None:
        """Removes an upload, if it exists."""
        with self._lock:
            upload = self._uploads.pop(name, None)
        if upload is not None:
            upload.path.unlink(missing_ok=True)


def shown_name(name: object) -> str:
    """Returns a safe name to show for a file, which may have any name.

    Args:
        name: The name that was sent with the file.

    Returns:
        The last part of its path, without unprintable characters, shortened to `SHOWN_NAME`.
    """
    last = name.replace('\\', '/').rpartition('/')[2] if isinstance(name, str) else ''
    return ''.join(filter(str.isprintable, last))[:SHOWN_NAME].strip('. ') or 'image'


def read_upload(path: Path, name: str | None = None, *, loader: ImageLoader | None = None) -> Frame:
    """Reads an image, and downscales it for the page if needed.

    Args:
        path: The file.
        name: Name of the image; by default, that of the file.
        loader: Loads the image; by default, like ``LoadImageFromFile`` without arguments.

    Returns:
        The image, with neither side above `LONGEST_SIDE`.

    Raises:
        UploadError: The file is not an image, damaged, too large or too small.
    """
    name = path.name if name is None else name
    try:
        with path.open('rb') as file:
            size = image_size(file)
    except FileNotFoundError as error:
        raise UploadError(f'{name} is no longer kept here. Please drop it again.') from error
    if size is None:
        raise _no_image(name)
    width, height = size
    if width * height > MEGAPIXELS * 10**6:
        raise _too_large(name)
    factor = min(1, LONGEST_SIDE / max(width, height))
    if round(min(width, height) * factor) < SMALLEST_INPUT:
        raise UploadError(
            f'{name} has {width} x {height} pixels, which is too narrow: a model needs at least '
            f'{SMALLEST_INPUT} on the shorter side when the longer one has up to {LONGEST_SIDE}.'
        )
    try:
        loaded = (loader or ImageLoader()).load_file(path, max_megapixels=MEGAPIXELS)
    except UnreadableInput as error:
        raise _no_image(name) from error
    results, drawing = loaded.results, loaded.drawing
    if factor < 1:
        image = _shrink(results['img'], factor)
        results = {**results, 'img': image, 'img_shape': image.shape[:2]}
        results['ori_shape'] = image.shape[:2]
        drawing = _shrink(drawing, factor)
    return Frame(drawing, 'image', name, results=results)


def _shrink(image: np.ndarray, factor: float) -> np.ndarray:
    if image.dtype not in (np.uint8, np.uint16):
        image = image.astype(np.float32)  # OpenCV cannot resize other integer types
    if image.ndim == 3 and image.shape[2] > 4:  # nor more than four channels at once
        return np.dstack([_shrink(channel, factor) for channel in np.moveaxis(image, 2, 0)])
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def _no_image(name: str) -> UploadError:
    return UploadError(
        f'{name} is not an image that can be read here. JPEG, PNG, WebP, BMP and TIFF can.'
    )


def _too_large(name: str) -> UploadError:
    return UploadError(f'{name} has more than the {MEGAPIXELS} megapixels that are accepted here.')
