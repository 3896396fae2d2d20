"""Finds and reads what a prediction is made for: pictures, videos and cameras."""

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nat_mm.cli.errors import CommandError
from nat_mm.cli.pictures import SUFFIXES, read_picture
from nat_mm.cli.video import UnreadableInput, Video

VIDEO_SUFFIXES = ('.mp4', '.m4v', '.mov', '.avi', '.mkv', '.webm', '.mpg', '.mpeg', '.wmv', '.gif')


@dataclass(frozen=True, eq=False)
class Frame:
    """An image to predict.

    Attributes:
        image: [height, width, 3], uint8, blue-green-red.
        name: Path of its results without suffix: ``street``, or of a video ``clip/000000``.
        file_name: Name of the file that it is from; of a camera ``camera0``.
        video: The video that it is from, if any.
        number: Which image of the video it is, from 0.
    """

    image: np.ndarray
    name: str
    file_name: str
    video: Video | None = None
    number: int | None = None

    def describe(self) -> dict:
        """What the data that are written say of where it is from."""
        place = {'image': self.file_name}
        if self.video is not None:
            place['frame'] = self.number
        return place


def find_inputs(inputs: Iterable[str], *, max_frames: int | None = None) -> list[Path | Video]:
    """Lists pictures, videos and cameras.

    Args:
        inputs: Each the index of a camera, if no file has that name; a file, which is a video if
            it has one of `VIDEO_SUFFIXES` and else a picture; a folder, whose files with the
            suffix of a picture are taken in order of their names; or a glob such as
            ``photos/**/*.jpg``, whose files are taken in order of their paths.
        max_frames: How many images of each video or camera are read; None means all.

    Returns:
        Paths of pictures, and videos; no two have the same name without suffix.

    Raises:
        CommandError: An input does not exist, a folder holds no picture, a glob matches no file,
            two inputs would have results of the same name, a camera is not the only input, or a
            camera is not available.
    """
    found = [medium for entry in inputs for medium in _expand(entry, max_frames)]
    by_name = {}
    for medium in found:
        name = _name(medium)
        other = by_name.setdefault(name, medium)
        if other is not medium:
            raise CommandError(
                f'{other} and {medium} would both have results named {name}: '
                'predict them into different folders'
            )
    cameras = [medium for medium in found if isinstance(medium, Video) and medium.is_camera]
    if cameras and len(found) > 1:
        raise CommandError(f'{cameras[0]} must be the only input, as it has no end')
    for camera in cameras:
        camera.check_camera()
    return found


def read_frames(media: Iterable[Path | Video], unreadable: list[str]) -> Iterator[Frame]:
    """Reads pictures and videos one image at a time.

    Args:
        media: Results of `find_inputs`.
        unreadable: Gets an entry for each that cannot be read: its path and the reason.

    Yields:
        The images.
    """
    for medium in media:
        try:
            if not isinstance(medium, Video):
                yield _read_picture(medium)
                continue
            file_name = medium.name if medium.is_camera else medium.source.name
            for number, image in enumerate(medium.images()):
                name = f'{medium.name}/{number:06d}'
                yield Frame(image, name, file_name, video=medium, number=number)
        except UnreadableInput as error:
            unreadable.append(f'{medium} ({error})')


def count_frames(media: Sequence[Path | Video]) -> int | None:
    """How many images there are to read, as far as the videos say.

    Args:
        media: Results of `find_inputs`.

    Returns:
        The number, or None if it is not known.
    """
    counts = [medium.frame_count() if isinstance(medium, Video) else 1 for medium in media]
    return None if None in counts else sum(counts)


def _expand(entry: str, max_frames: int | None) -> list[Path | Video]:
    path = Path(entry)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not found:
            raise CommandError(f'no pictures ({", ".join(SUFFIXES)}) in the folder {path}')
        return found
    if path.is_file():
        return [_medium(path, max_frames)]
    if entry.isdecimal():
        return [Video(int(entry), max_frames)]
    if not glob.has_magic(entry):
        raise CommandError(f'input not found: {path}')
    matches = map(Path, sorted(glob.glob(entry, recursive=True)))
    files = [match for match in matches if match.is_file()]
    if not files:
        raise CommandError(f'no file matches {entry}')
    return [_medium(file, max_frames) for file in files]


def _medium(path: Path, max_frames: int | None) -> Path | Video:
    return Video(path, max_frames) if path.suffix.lower() in VIDEO_SUFFIXES else path


def _name(medium: Path | Video) -> str:
    return medium.name if isinstance(medium, Video) else medium.stem


def _read_picture(path: Path) -> Frame:
    try:
        image = read_picture(path)
    except OSError as error:
        raise UnreadableInput(error.strerror) from error
    if image is None:
        raise UnreadableInput('not a picture that can be read')
    return Frame(image, path.stem, path.name)
