"""Reads and writes videos with PyAV, and reads cameras with OpenCV."""

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

from nat_mm.errors import UserError
from nat_mm.files import unfinished_path, write_errors
from nat_mm.inference.images import UnreadableInput, check_regular, check_size

USUAL_FPS = 25.0
"""Frame rate of a video or camera that does not specify one."""

# OpenCV 5 has setLogLevel in cv2.utils.logging, OpenCV 4 in cv2.
_set_log_level = getattr(cv2.utils, 'logging', cv2).setLogLevel
_SILENT = 0

# Some containers only estimate how many frames they contain.
_SHARE_OF_COMPLETE_VIDEO = 0.9

# Twice as fast as x264's default; drawn lines and letters stay sharp.
_ENCODER_OPTIONS = {'preset': 'veryfast', 'crf': '20'}
_BT601 = 6
_LARGEST_DENOMINATOR = 65535


@dataclass(frozen=True)
class Video:
    """A video file or a camera.

    Attributes:
        source: Path of the file, or index of the camera.
        max_frames: Maximum number of frames to read; None means all, without end for a camera.
    """

    source: Path | int
    max_frames: int | None = None

    @property
    def name(self) -> str:
        """Name of its results."""
        return f'camera{self.source}' if self.path is None else self.path.stem

    @property
    def path(self) -> Path | None:
        """The file; None for a camera."""
        return None if isinstance(self.source, int) else self.source

    @property
    def is_camera(self) -> bool:
        return self.path is None

    def __str__(self) -> str:
        return f'camera {self.source}' if self.is_camera else str(self.source)

    def frame_count(self) -> int | None:
        """Returns how many frames will be read according to the file; None if unknown."""
        if self.is_camera:
            return self.max_frames
        try:
            counts = [self._file.frame_count, self.max_frames]
        except (OSError, UnreadableInput):
            return 0
        return min((count for count in counts if count is not None), default=None)

    def fps(self) -> float:
        """Returns frames per second; `USUAL_FPS` for a camera or a file that does not say."""
        return USUAL_FPS if self.is_camera else self._file.fps

    def check_camera(self) -> None:
        """Checks that a camera delivers images, before anything else takes time.

        Raises:
            UserError: It does not.
        """
        capture = self._open_camera()
        available = capture.isOpened() and capture.read()[0]
        capture.release()
        if not available:
            raise UserError(
                f'{self} is not available: nothing is connected under this number, '
                'or another program uses it'
            )

    def images(self, *, max_megapixels: float) -> Iterator[np.ndarray]:
        """Reads the frames one by one, each [height, width, 3], uint8, BGR.

        A file is opened once, by whichever method needs it first, and closed after its last frame,
        so that it can be read only once.

        Args:
            max_megapixels: Largest size of a frame.

        Raises:
            UnreadableInput: There are no frames, or they are too large. Also raised after the last
                readable frame if far fewer were read than the file should contain, or if a camera
                without ``max_frames`` stopped.
            UserError: PyAV, which reads videos, is not installed.
        """
        frames = self._camera_images() if self.is_camera else self._file.images(max_megapixels)
        count = 0
        with closing(frames):
            for image in islice(frames, self.max_frames):
                yield image
                count += 1
        expected = self.frame_count()
        if count == 0:
            raise UnreadableInput('not a video that can be read')
        if expected is not None and count < _SHARE_OF_COMPLETE_VIDEO * expected:
            raise UnreadableInput(f'ends after {count} of {expected} frames')
        if self.is_camera and self.max_frames is None:
            raise UnreadableInput(f'stopped after {count} frames')

    @cached_property
    def _file(self) -> '_VideoFile':
        if self.path is None:
            raise ValueError(f'{self} is a camera, not a file')
        return _VideoFile(self.path)

    def _camera_images(self) -> Generator[np.ndarray, None, None]:
        capture = self._open_camera()
        try:
            while True:
                found, image = capture.read()
                if not found:
                    return
                yield image
        finally:
            capture.release()

    def _open_camera(self) -> cv2.VideoCapture:
        # Silence OpenCV, because unreadable cameras are reported by this program, in one line.
        os.environ.setdefault('OPENCV_FFMPEG_LOGLEVEL', '-8')
        level = _set_log_level(_SILENT)
        try:
            return cv2.VideoCapture(self.source)
        finally:
            _set_log_level(level)


class _VideoFile:
    """A video file, open until its frames have been read.

    Attributes:
        frame_count: Number of frames according to the file; None if it does not say.
        fps: Frames per second.

    Raises:
        UnreadableInput: The file is not a video.
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._av = import_pyav()
        check_regular(os.stat(path))  # FFmpeg would wait for a writer to a pipe
        try:
            # Without the scheme, FFmpeg would interpret a name such as `concat:x` as a URL.
            self._container = self._av.open(f'file:{path}')
            self._stream = self._container.streams.video[0]
        except OSError:
            raise
        except (self._av.FFmpegError, IndexError) as error:
            raise UnreadableInput('not a video that can be read') from error
        self._stream.thread_type = 'AUTO'
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.fps = float(rate) if rate else USUAL_FPS
        self.frame_count = self._stream.frames or self._estimated_frame_count()

    def _estimated_frame_count(self) -> int | None:
        if self._container.duration is None:
            return None
        return round(self._container.duration / self._av.time_base * self.fps) or None

    def images(self, max_megapixels: float) -> Generator[np.ndarray, None, None]:
        """Decodes the frames, all scaled to the size of the first, and closes the file."""
        with self._container:
            check_size(self._stream.width, self._stream.height, max_megapixels)
            size: dict[str, int] = {}
            for frame in self._frames():
                check_size(frame.width, frame.height, max_megapixels)
                size = size or {'width': frame.width, 'height': frame.height}
                image = frame.to_ndarray(format='bgr24', **size)
                yield np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))

    def _frames(self) -> Iterator:
        try:
            for packet in self._container.demux(self._stream):
                try:
                    yield from packet.decode()
                except self._av.InvalidDataError:
                    continue  # the frames after a damaged one may be intact
        except self._av.FFmpegError:
            return  # the caller compares the number of frames


class VideoWriter:
    """Writes an MP4 file (H.264), which gets its final name when it is closed.

    An odd height or width grows by one pixel, because ``yuv420p``, the pixel format that all
    browsers play, allows only even ones.

    Args:
        path: File to write; its folder is created if needed.
        fps: Frames per second.
        size: Height and width of the images, in pixels.

    Raises:
        UnreadableInput: H.264 does not support this size or frame rate.
        UserError: PyAV, which writes videos, is not installed.
        FileWriteError: The file cannot be written.
    """

    def __init__(self, path: Path, *, fps: float, size: tuple[int, int]) -> None:
        self._av = import_pyav()
        self.path = path
        height, width = size
        self._border = height % 2, width % 2
        self._unfinished = unfinished_path(path)
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # With the index at the start, a browser plays the video while it is still loading.
            self._container = self._av.open(
                f'file:{self._unfinished}', 'w', options={'movflags': 'faststart'}
            )
        try:
            with write_errors(path):
                self._start(fps, width, height)
        except BaseException:
            with suppress(self._av.FFmpegError):  # a full disk, again
                self._container.close()
            self._unfinished.unlink(missing_ok=True)
            raise

    def _start(self, fps: float, width: int, height: int) -> None:
        try:
            rate = Fraction(fps).limit_denominator(_LARGEST_DENOMINATOR)
            self._stream = self._container.add_stream('libx264', rate, _ENCODER_OPTIONS)
            self._stream.width, self._stream.height = width + width % 2, height + height % 2
            self._stream.pix_fmt = 'yuv420p'
            # Tells players how PyAV converts colors; otherwise they guess from the size.
            self._stream.codec_context.colorspace = _BT601
            self._container.start_encoding()
        except OSError:
            raise
        except (self._av.FFmpegError, ValueError, OverflowError) as error:
            raise UnreadableInput(
                f'cannot write a video of {width} x {height} pixels at {fps:g} frames per second'
            ) from error

    def write(self, image: np.ndarray) -> None:
        """Appends an image.

        Args:
            image: [height, width, 3], uint8, BGR.

        Raises:
            FileWriteError: It cannot be written.
        """
        bottom, right = self._border
        image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        frame = self._av.VideoFrame.from_ndarray(image, format='bgr24')
        with write_errors(self.path):
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Completes the file and moves it to its final name.

        Raises:
            FileWriteError: It cannot be completed; then it is removed.
        """
        with write_errors(self.path), ExitStack() as stack:
            stack.callback(self._unfinished.unlink, missing_ok=True)
            with closing(self._container):
                self._container.mux(self._stream.encode())
            os.replace(self._unfinished, self.path)


def import_pyav() -> ModuleType:
    """Imports PyAV, which is needed only for videos.

    Raises:
        UserError: It is not installed.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise UserError(
            "videos need PyAV, which is not installed: pip install 'nat_mm[video]'"
        ) from error
    return av
