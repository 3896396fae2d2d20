"""Finds and reads what a prediction is made for: images, videos and cameras."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nat_mm.errors import UserError
from nat_mm.inference.images import MEGAPIXELS, SUFFIXES, UnreadableInput, read_picture
from nat_mm.inference.video import Video

VIDEO_SUFFIXES = ('.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv', '.gif')

_OPEN_VIDEOS = 100

_LONGEST_NAME = 255 - len('.json')
"""Bytes of a name to which a result's suffix is added; file systems take 255 with it."""


@dataclass(frozen=True, eq=False)
class Frame:
    """An image to predict.

    Attributes:
        image: [height, width, 3], uint8, blue-green-red.
        name: Path of its results without suffix: ``street``, or of a video ``clip/000000``.
        file_name: Name of the file that it is from; of a camera ``camera0``.
        video: The video that it is from, if any.
        number: Which image of the video it is, from 0.
        medium: The result of `find_inputs` that it was read from.
    """

    image: np.ndarray
    name: str
    file_name: str
    video: Video | None = None
    number: int | None = None
    medium: Path | Video | None = None

    def describe(self) -> dict:
        """What the data that are written say of where it is from."""
        place: dict[str, str | int | None] = {'image': self.file_name}
        if self.video is not None:
            place['frame'] = self.number
        return place


def find_inputs(inputs: Iterable[str], *, max_frames: int | None = None) -> list[Path | Video]:
    """Lists images, videos and cameras.

    Args:
        inputs: Each the index of a camera, if no file has that name; a file, which is a video if
            it has one of `VIDEO_SUFFIXES` and else an image; a folder, whose entries with the
            suffix of an image are taken in order of their names; or a glob such as
            ``photos/**/*.jpg``, whose files are taken in order of their paths. Nothing is opened
            but folders and cameras: whether the rest can be read, `read_frames` finds out.
        max_frames: How many images of each video or camera are read; None means all.

    Returns:
        Paths of images, and videos; no two have the same name without suffix.

    Raises:
        UserError: An input does not exist, a folder cannot be listed or holds no image, a
            glob matches no file,
            two inputs would have results of the same name, a camera is not the only input, or a
            camera is not available.
    """
    found = [medium for entry in inputs for medium in _expand(entry, max_frames)]
    by_name: dict[str, Path | Video] = {}
    for medium in found:
        name = _name(medium)
        other = by_name.setdefault(name, medium)
        if other is not medium:
            raise UserError(
                f'{other} and {medium} would both have results named {name}: '
                'predict them into different folders'
            )
    cameras = [medium for medium in found if isinstance(medium, Video) and medium.is_camera]
    if cameras and len(found) > 1:
        raise UserError(f'{cameras[0]} must be the only input, as it has no end')
    for camera in cameras:
        camera.check_camera()
    return found


def read_frames(
    media: Iterable[Path | Video],
    unreadable: dict[Path | Video, str],
    *,
    max_megapixels: float = MEGAPIXELS,
) -> Iterator[Frame]:
    """Reads images and videos one image at a time.

    Args:
        media: Results of `find_inputs`.
        unreadable: Gets the reason for each that cannot be read. A video to which the caller adds
            one is left where it is.
        max_megapixels: Size of the largest images that are decoded.

    Yields:
        The images.
    """
    for medium in media:
        try:
            _check_name(medium)
            if not isinstance(medium, Video):
                yield _read_picture(medium, max_megapixels)
                continue
            file_name = medium.name if medium.path is None else medium.path.name
            for number, image in enumerate(medium.images(max_megapixels=max_megapixels)):
                name = f'{medium.name}/{number:06d}'
                yield Frame(image, name, file_name, video=medium, number=number, medium=medium)
                if medium in unreadable:
                    break
        except UnreadableInput as error:
            unreadable[medium] = str(error)
        except OSError as error:
            unreadable[medium] = error.strerror or str(error)
        except MemoryError:
            unreadable[medium] = 'not enough memory'


def list_unreadable(unreadable: dict[Path | Video, str], media: Sequence[Path | Video]) -> str:
    """Says which inputs were left out, and why."""
    entries = (f'{medium} ({reason})' for medium, reason in unreadable.items())
    return f'{len(unreadable)} of {len(media)} inputs cannot be read: {", ".join(entries)}'


def count_frames(media: Sequence[Path | Video]) -> int | None:
    """How many images there are to read, as far as the videos say; opens the videos.

    Args:
        media: Results of `find_inputs`.

    Returns:
        The number, or None if it is not known.
    """
    # They stay open until they are read, and a process may have about 1000 open files.
    if sum(isinstance(medium, Video) for medium in media) > _OPEN_VIDEOS:
        return None
    counts = [medium.frame_count() if isinstance(medium, Video) else 1 for medium in media]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _expand(entry: str, max_frames: int | None) -> list[Path | Video]:
    path = Path(entry)
    if os.path.isdir(path):
        try:
            images = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        except OSError as error:
            raise UserError(f'cannot list the folder {path}: {error.strerror}') from error
        if not images:
            raise UserError(f'no images ({", ".join(SUFFIXES)}) in the folder {path}')
        return list(images)
    if os.path.lexists(path):
        return [_medium(path, max_frames)]
    if entry.isdecimal():
        return [Video(int(entry), max_frames)]
    if not glob.has_magic(entry):
        raise UserError(f'input not found: {path}')
    matches = map(Path, sorted(glob.glob(entry, recursive=True)))
    suffixes = (*SUFFIXES, *VIDEO_SUFFIXES)
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


def _check_name(medium: Path | Video) -> None:
    if len(os.fsencode(_name(medium))) > _LONGEST_NAME:
        raise UnreadableInput('its name is too long for those of the results')


def _read_picture(path: Path, max_megapixels: float) -> Frame:
    image = read_picture(path, max_megapixels=max_megapixels)
    if image is None:
        raise UnreadableInput('not an image that can be read')
    return Frame(image, path.stem, path.name, medium=path)
