"""Finds and reads the inputs of a prediction: images, videos and cameras."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from nat_mm.errors import UserError, describe_error
from nat_mm.inference.images import IMAGE_SUFFIXES, MEGAPIXELS, UnreadableInput
from nat_mm.inference.loading import ImageLoader
from nat_mm.inference.video import Video

VIDEO_SUFFIXES = ('.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv', '.gif')

_OPEN_VIDEOS = 100

_FAULTS_OF_AN_IMAGE = (
    UnreadableInput,
    ValueError,  # from a model or an encoder: too small, too large
    cv2.error,  # from a pipeline: resized to nothing
    ZeroDivisionError,  # likewise
    MemoryError,
    torch.OutOfMemoryError,
)
_TEXTS_ABOUT_AN_IMAGE = (
    # PyTorch has no specific exceptions for these.
    'allocate memory',
    "Kernel size can't be greater than actual input size",
    'Padding size should be less than the corresponding input dimension',
    'Output size is too small',
)
_URL = re.compile(r'[a-zA-Z][a-zA-Z0-9+.-]+://')

_LONGEST_NAME = 255 - len('.json')
"""Maximum bytes of a name without a result's suffix; file systems allow 255 in total."""


@dataclass(frozen=True, eq=False)
class Frame:
    """An image to predict.

    Attributes:
        image: The image to draw on: [height, width, 3], uint8, BGR.
        name: Path of its results without suffix: ``street``, or for a video ``clip/000000``.
        file_name: Name of the file that it is from; ``camera0`` for a camera.
        video: The video that it is from, if any.
        number: Its index in the video, from 0.
        medium: The result of `find_inputs` that it was read from.
        results: What the config's loader returned, for the rest of the pipeline; see `LoadedImage`.
            If None, ``image`` is used as if a decoder had returned it.
    """

    image: np.ndarray
    name: str
    file_name: str
    video: Video | None = None
    number: int | None = None
    medium: Path | Video | None = None
    results: dict[str, Any] | None = None

    @property
    def pixels(self) -> np.ndarray:
        """The image that the model gets: [height, width] or [height, width, channels]."""
        return self.image if self.results is None else self.results['img']

    def describe(self) -> dict:
        """Returns the origin of the image as it is written to the results."""
        place: dict[str, str | int | None] = {'image': self.file_name}
        if self.video is not None:
            place['frame'] = self.number
        return place


class LeftOut(dict[Path | Video, str]):
    """The reasons why inputs are left out, by input.

    Attributes:
        unexpected: The first error that may be due to a bug rather than an image; None if there is
            none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unexpected: Exception | None = None

    def add(self, medium: Path | Video, error: Exception, *, doing: str) -> None:
        """Records why an input is left out; keeps the first reason for each.

        Args:
            medium: The input.
            error: What happened.
            doing: What cannot be done with it, such as ``cannot be loaded``, to begin the reason.

        Raises:
            UserError: The error is a UserError, which does not concern only this input.
        """
        if isinstance(error, UserError):
            raise error
        if isinstance(error, cv2.error):
            text = error.err  # its own text names lines of OpenCV's source
        else:
            text = str(error) or ('not enough memory' if isinstance(error, MemoryError) else '')
        text = (text.strip().splitlines() or [''])[0]
        if not _is_fault_of_image(error):
            self.unexpected = self.unexpected or error
            text = describe_error(error).splitlines()[0]
        self.setdefault(medium, f'{doing}: {text}')

    def describe(self, media: Sequence[Path | Video]) -> str:
        """Says which of all inputs are left out, and why."""
        entries = (f'{medium} ({reason})' for medium, reason in self.items())
        return f'{len(self)} of {len(media)} inputs cannot be used: {", ".join(entries)}'


def _is_fault_of_image(error: Exception) -> bool:
    return isinstance(error, _FAULTS_OF_AN_IMAGE) or any(
        text in str(error) for text in _TEXTS_ABOUT_AN_IMAGE
    )


def find_inputs(inputs: Iterable[str], *, max_frames: int | None = None) -> list[Path | Video]:
    """Lists images, videos and cameras.

    Only folders and cameras are opened; `read_frames` finds out whether files can be read.

    Args:
        inputs: Each is the index of a camera, if no file has that name; a file, which is a video if
            it has one of `VIDEO_SUFFIXES` and an image otherwise; a folder, whose entries with the
            suffix of an image are taken in order of their names; or a glob such as
            ``photos/**/*.jpg``, whose files are taken in order of their paths.
        max_frames: How many images of each video or camera are read; None means all.

    Returns:
        Paths of images, and videos, each once, even if several inputs name or contain it.

    Raises:
        UserError: An input does not exist or is a URL, a folder cannot be listed or contains no
            image, a glob matches no file, a camera is not the only input, or a camera is not
            available.
    """
    by_identity: dict[object, Path | Video] = {}
    for entry in inputs:
        for medium in _expand(entry, max_frames):
            by_identity.setdefault(_identity(medium), medium)
    found = list(by_identity.values())
    cameras = [medium for medium in found if isinstance(medium, Video) and medium.is_camera]
    if cameras and len(found) > 1:
        raise UserError(f'{cameras[0]} must be the only input, as it has no end')
    for camera in cameras:
        camera.check_camera()
    return found


def result_names(media: Sequence[Path | Video]) -> dict[Path | Video, str]:
    """Names the results of inputs.

    Args:
        media: Results of `find_inputs`.

    Returns:
        The name of each without suffix. If any files in different folders have the same name, all
        are named by their paths relative to the common folder: ``cam0/0001`` and ``cam1/0001``.
    """
    names = {medium: _name(medium) for medium in media}
    files = {medium: _file(medium) for medium in media}
    if len(set(names.values())) == len(media) or None in files.values():
        return names
    paths = {medium: os.path.abspath(file) for medium, file in files.items() if file is not None}
    root = os.path.commonpath([os.path.dirname(path) for path in paths.values()])
    return {
        medium: Path(os.path.relpath(path, root)).with_suffix('').as_posix()
        for medium, path in paths.items()
    }


def check_result_names(media: Sequence[Path | Video]) -> None:
    """Checks that inputs have results with different names; see `result_names`.

    Raises:
        UserError: Two would have the same, or one would be among the results of a video.
    """
    by_name: dict[str, Path | Video] = {}
    names = result_names(media)
    for medium, name in names.items():
        other = by_name.setdefault(name, medium)
        if other is not medium:
            raise UserError(
                f'{other} and {medium} would both have results named {name}: '
                'predict them into different folders'
            )
    for medium, name in names.items():
        for folder in map(str, Path(name).parents):
            if isinstance(by_name.get(folder), Video):
                raise UserError(
                    f'the results of {medium} would be among those of the images of '
                    f'{by_name[folder]}: predict them into different folders'
                )


def read_frames(
    media: Sequence[Path | Video],
    left_out: LeftOut,
    *,
    loader: ImageLoader | None = None,
    max_megapixels: float = MEGAPIXELS,
) -> Iterator[Frame]:
    """Reads images and videos one image at a time.

    Args:
        media: Results of `find_inputs`.
        left_out: Receives the reason for each input that cannot be read. If the caller adds a
            reason for a video, reading it stops.
        loader: Loads the images; by default, like ``LoadImageFromFile`` without arguments.
        max_megapixels: Size of the largest images that are decoded.

    Yields:
        The images.
    """
    loader = loader or ImageLoader()
    names = result_names(media)
    for medium in media:
        try:
            yield from _read(medium, names[medium], left_out, loader, max_megapixels)
        except UnreadableInput as error:
            left_out[medium] = str(error)
        except OSError as error:
            reason = error.strerror or str(error)
            is_other = error.filename not in (None, str(_file(medium)))
            left_out[medium] = f'{reason}: {error.filename}' if is_other else reason
        except Exception as error:
            # A user's custom loader may raise anything.
            left_out.add(medium, error, doing='cannot be loaded')


def read_all(media: Sequence[Path | Video], loader: ImageLoader) -> Iterator[Frame]:
    """Like `read_frames`, but raises at the end if inputs cannot be read.

    Raises:
        UserError: It says which, and why.
        Exception: `LeftOut.unexpected`, if none can be read.
    """
    left_out = LeftOut()
    yield from read_frames(media, left_out, loader=loader)
    if left_out.unexpected and len(left_out) == len(media):
        raise left_out.unexpected
    if left_out:
        raise UserError(left_out.describe(media))


def _read(
    medium: Path | Video, name: str, left_out: LeftOut, loader: ImageLoader, max_megapixels: float
) -> Iterator[Frame]:
    file = _file(medium)
    file_name = name if file is None else f'{name}{file.suffix}'
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in name.split('/')):
        raise UnreadableInput('its name is too long for those of the results')
    if not isinstance(medium, Video):
        loaded = loader.load_file(medium, max_megapixels=max_megapixels)
        yield Frame(loaded.drawing, name, file_name, medium=medium, results=loaded.results)
        return
    for number, image in enumerate(medium.images(max_megapixels=max_megapixels)):
        loaded = loader.load_array(image)
        yield Frame(
            loaded.drawing,
            f'{name}/{number:06d}',
            file_name,
            video=medium,
            number=number,
            medium=medium,
            results=loaded.results,
        )
        if medium in left_out:
            break


def count_frames(media: Sequence[Path | Video]) -> int | None:
    """Counts the images to read, according to the videos' own information; opens the videos.

    Args:
        media: Results of `find_inputs`.

    Returns:
        The number, or None if it is not known.
    """
    # Videos stay open until they are read, and a process may have about 1000 open files.
    if sum(isinstance(medium, Video) for medium in media) > _OPEN_VIDEOS:
        return None
    counts = [medium.frame_count() if isinstance(medium, Video) else 1 for medium in media]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _expand(entry: str, max_frames: int | None) -> list[Path | Video]:
    path = Path(entry)
    if _URL.match(entry):
        raise UserError(
            f'{entry} is a URL, and nothing is downloaded here: download the file, for example '
            f'with curl -O, and give its path'
        )
    if not entry:
        raise UserError("an input is '', not a path")  # Path('') is the current folder
    if os.path.isdir(path):
        try:
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        except OSError as error:
            raise UserError(f'cannot list the folder {path}: {error.strerror}') from error
        if not found:
            raise UserError(f'no images ({", ".join(IMAGE_SUFFIXES)}) in the folder {path}')
        return list(found)
    if os.path.lexists(path):
        return [_medium(path, max_frames)]
    if entry.isdecimal():
        return [Video(int(entry), max_frames)]
    if not glob.has_magic(entry):
        raise UserError(f'input not found: {path}')
    matches = map(Path, sorted(glob.glob(entry, recursive=True)))
    suffixes = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    files = [
        match for match in matches if match.suffix.lower() in suffixes or not os.path.isdir(match)
    ]
    if not files:
        raise UserError(f'no file matches {entry}')
    return [_medium(file, max_frames) for file in files]


def _medium(path: Path, max_frames: int | None) -> Path | Video:
    return Video(path, max_frames) if path.suffix.lower() in VIDEO_SUFFIXES else path


def _name(medium: Path | Video) -> str:
    return medium.name if isinstance(medium, Video) else medium.stem


def _file(medium: Path | Video) -> Path | None:
    return medium.path if isinstance(medium, Video) else medium


def _identity(medium: Path | Video) -> object:
    """Returns what is equal for two ways to write the path of a file, but not for links to it."""
    file = _file(medium)
    return medium if file is None else (os.path.abspath(file), os.path.realpath(file))
