"""Provides what the commands that draw attention and saliency share."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import track

from nat_mm.commands.arguments import add_device_option
from nat_mm.errors import UserError
from nat_mm.inference.images import check_not_overwritten
from nat_mm.inference.inputs import Frame, check_result_names, find_inputs, read_all, result_names
from nat_mm.inference.loading import ImageLoader
from nat_mm.inference.video import Video


def add_drawing_options(parser: argparse.ArgumentParser, *, out_dir: str) -> None:
    """Adds ``--out-dir``, ``--short-side`` and ``--device``.

    Args:
        parser: Parser of the command.
        out_dir: Default of ``--out-dir``.
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


def find_images(
    inputs: Sequence[str], out_dir: Path, *, results: Sequence[str] | None = None
) -> list[Path]:
    """Lists the images to draw over, and creates the folder of the results.

    Args:
        inputs: Images, folders of images and globs.
        out_dir: Folder of the results, which are named ``NAME.png``.
        results: Names of the results of a single image, without suffix; by default, each image has
            one, named like it.

    Returns:
        The files. Their results have different names; see `result_names`.

    Raises:
        UserError: An input does not exist, is a video, or would be overwritten; there are several
            images where one is wanted; or the folder cannot be created.
    """
    images = []
    for medium in find_inputs(inputs):
        if isinstance(medium, Video):
            raise UserError(f'{medium} is a video, not an image')
        images.append(medium)
    if results is not None and len(images) > 1:
        raise UserError(f'only one image can be given, got {len(images)} with {", ".join(inputs)}')
    check_result_names(images)
    names = result_names(images).values() if results is None else results
    check_not_overwritten(images, [result_path(out_dir, name) for name in names])
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'cannot make the folder --out-dir {out_dir}: {error}') from error
    return images


def result_path(out_dir: Path, name: str) -> Path:
    """Returns the path for the drawing of an image."""
    return out_dir / f'{name}.png'


def read_images(images: Sequence[Path], loader: ImageLoader) -> Iterator[Frame]:
    """Reads images one by one and shows the progress.

    Args:
        images: The files.
        loader: Loads them like a model's test pipeline.

    Yields:
        The images that can be read.

    Raises:
        UserError: At the end, if some images cannot be read.
    """
    yield from track(read_all(images, loader), 'Drawing', total=len(images))


@contextmanager
def value_mistakes(subject: str) -> Iterator[None]:
    """Converts a ValueError inside the ``with`` block to a `UserError` about ``subject``."""
    try:
        yield
    except ValueError as error:
        raise UserError(f'{subject}: {error}') from error
