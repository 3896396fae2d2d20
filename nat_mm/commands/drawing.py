"""Shared by the commands that draw attention and saliency."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import track

from nat_mm.commands.device import add_device_option
from nat_mm.errors import UserError
from nat_mm.inference.images import check_not_overwritten
from nat_mm.inference.inputs import Frame, find_inputs, list_unreadable, read_frames
from nat_mm.inference.video import Video


def add_drawing_options(parser: argparse.ArgumentParser, *, out_dir: str) -> None:
    """Adds ``--out-dir``, ``--short-side`` and ``--device``.

    Args:
        parser: Parser of the command.
        out_dir: Default of the first.
    """
    parser.add_argument(
        '--out-dir', type=Path, default=out_dir, help='folder for the results; default: %(default)s'
    )
    parser.add_argument(
        '--short-side',
        type=int,
        metavar='PIXELS',
        help='resize the shorter side of images to this, at least 32; default: resize as in the '
        "config's test pipeline. Images are never cropped",
    )
    add_device_option(parser)


def find_images(inputs: Sequence[str], out_dir: Path) -> list[Path]:
    """Lists the images to draw over, and makes the folder of the results.

    Args:
        inputs: Images, folders of images and globs.
        out_dir: Folder of the results, which are called ``NAME.png``.

    Returns:
        The files; no two have the same name without suffix.

    Raises:
        UserError: An input does not exist, is a video, or would be overwritten; or there cannot
            be such a folder.
    """
    images = []
    for medium in find_inputs(inputs):
        if isinstance(medium, Video):
            raise UserError(f'{medium} is a video; give images')
        images.append(medium)
    check_not_overwritten(images, [result_path(out_dir, image.stem) for image in images])
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'cannot make the folder --out-dir {out_dir}: {error}') from error
    return images


def result_path(out_dir: Path, name: str) -> Path:
    """Where the drawing of an image goes."""
    return out_dir / f'{name}.png'


def read_images(images: Sequence[Path]) -> Iterator[Frame]:
    """Reads images one by one and shows the progress.

    Args:
        images: The files.

    Yields:
        Those that can be read.

    Raises:
        UserError: At the end, if some cannot be read.
    """
    unreadable = {}
    yield from track(read_frames(images, unreadable), 'Drawing', total=len(images))
    if unreadable:
        raise UserError(list_unreadable(unreadable, images))


@contextmanager
def value_mistakes(subject: str) -> Iterator[None]:
    """Turns each ValueError inside the ``with`` block into a `UserError` about ``subject``."""
    try:
        yield
    except ValueError as error:
        raise UserError(f'{subject}: {error}') from error
