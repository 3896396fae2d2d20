"""Reads and writes videos, and reads cameras, with OpenCV."""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from nat_mm.errors import UserError
from nat_mm.files import unfinished_path
from nat_mm.inference.images import UnreadableInput, check_regular, check_size

USUAL_FPS = 25.0
"""Of a video or camera that does not tell how many images it has in a second."""

# OpenCV 5 has it in cv2.utils.logging, OpenCV 4 in cv2.
_set_log_level = getattr(cv2.utils, 'logging', cv2).setLogLevel
_SILENT = 0

# Some containers only estimate how many images they hold.
_SHARE_OF_COMPLETE_VIDEO = 0.9


@dataclass(frozen=True)
class Video:
    """A video file or a camera.

    Attributes:
        source: Path of the file, or index of the camera.
        max_frames: How many images are read at most; None means all, of a camera without end.
    """

    source: Path | int
    max_frames: int | None = None

    @property
    def name(self) -> str:
        """What its results are called."""
        return f'camera{self.source}' if self.is_camera else self.source.stem

    @property
    def is_camera(self) -> bool:
        return isinstance(self.source, int)

    def __str__(self) -> str:
        return f'camera {self.source}' if self.is_camera else str(self.source)

    def frame_count(self) -> int | None:
        """How many images are going to be read, as the file says; None if that is not known."""
        if self.is_camera:
            return self.max_frames
        count = self._property(cv2.CAP_PROP_FRAME_COUNT)
        if count is None:
            return 0
        if not 0 < count < math.inf:
            return self.max_frames
        return int(count) if self.max_frames is None else min(int(count), self.max_frames)

    def fps(self) -> float:
        """Images in a second; `USUAL_FPS` of a camera, and of a file that does not say it."""
        fps = None if self.is_camera else self._property(cv2.CAP_PROP_FPS)
        return fps if fps is not None and 0 < fps < math.inf else USUAL_FPS

    def check_camera(self) -> None:
        """Checks that a camera gives images, before anything else takes time.

        Raises:
            UserError: It does not.
        """
        capture = self._open()
        available = capture.isOpened() and capture.read()[0]
        capture.release()
        if not available:
            raise UserError(
                f'{self} is not available: nothing is connected under this number, '
                'or another program uses it'
            )

    def images(self, *, max_megapixels: float) -> Iterator[np.ndarray]:
        """Reads the images one by one, each [height, width, 3], uint8, blue-green-red.

        Args:
            max_megapixels: Largest size of an image.

        Raises:
            UnreadableInput: There is none, they are too large, or after the last one that could be
                read, far fewer than the file should hold.
        """
        if not self.is_camera:
            check_regular(os.stat(self.source))
        expected = self.frame_count()
        capture = self._open()
        count = 0
        try:
            if not self.is_camera and capture.isOpened():
                width = capture.get(cv2.CAP_PROP_FRAME_WIDTH)
                height = capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
                check_size(int(width), int(height), max_megapixels)
            while self.max_frames is None or count < self.max_frames:
                found, image = capture.read()
                if not found:
                    break
                yield image
                count += 1
        finally:
            capture.release()
        if count == 0:
            raise UnreadableInput('not a video that can be read')
        if expected is not None and count < _SHARE_OF_COMPLETE_VIDEO * expected:
            raise UnreadableInput(f'ends after {count} of {expected} images')
        if self.is_camera and self.max_frames is None:
            raise UnreadableInput(f'stopped after {count} images')

    def _property(self, number: int) -> float | None:
        """What OpenCV says of the file; None if it cannot be read."""
        # OpenCV would wait for somebody who writes to a pipe.
        if not self.source.is_file():
            return None
        capture = self._open()
        value = capture.get(number) if capture.isOpened() else None
        capture.release()
        return value

    def _open(self) -> cv2.VideoCapture:
        # What cannot be read is reported by this program, in one line.
        os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
        level = _set_log_level(_SILENT)
        try:
            return cv2.VideoCapture(self.source if self.is_camera else str(self.source))
        finally:
            _set_log_level(level)


class VideoWriter:
    """Writes an MP4 file (MPEG-4 part 2), which is at its place once it is closed.

    An odd height or width grows by a pixel, as the codec has only even ones.

    Args:
        path: File to write; its folder is made if need be.
        fps: Images in a second.
        size: Height and width of the images, in pixels.

    Raises:
        UnreadableInput: OpenCV cannot write a video of this size and speed.
    """

    def __init__(self, path: Path, *, fps: float, size: tuple[int, int]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = size
        self._border = height % 2, width % 2
        self._unfinished = unfinished_path(path)
        self._writer = cv2.VideoWriter(
            str(self._unfinished),
            cv2.VideoWriter_fourcc(*'mp4v'),
            fps,
            (width + width % 2, height + height % 2),
        )
        if not self._writer.isOpened():
            self._unfinished.unlink(missing_ok=True)
            raise UnreadableInput(
                f'cannot write a video of {width} x {height} pixels at {fps:g} images per second'
            )

    def write(self, image: np.ndarray) -> None:
        """Appends an image.

        Args:
            image: [height, width, 3], uint8, blue-green-red.
        """
        bottom, right = self._border
        self._writer.write(cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE))

    def close(self) -> None:
        """Finishes the file and puts it in its place."""
        self._writer.release()
        os.replace(self._unfinished, self.path)
