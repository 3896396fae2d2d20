"""Represents annotated images independently of their file format."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from nat_mm.data.image_headers import read_header
from nat_mm.errors import UserError
from nat_mm.inference.images import IMAGE_SUFFIXES, UnreadableInput

_TOLERANCE = 0.01
"""How far points may lie outside an image, as a share of its sides: tools round differently."""


@dataclass(frozen=True)
class AnnotatedObject:
    """An object in an image.

    Attributes:
        name: Its class.
        box: x, y, width and height, in pixels.
        polygons: Its outline, each polygon as x1, y1, x2, y2, ... in pixels.
        mask: Its pixels as COCO's compressed RLE if it has no polygons. Without either, only the
            box is known.
        is_ignored: Whether neither detecting nor missing it is a mistake: ``iscrowd`` in COCO.
    """

    name: str
    box: tuple[float, float, float, float]
    polygons: tuple[tuple[float, ...], ...] = ()
    mask: dict[str, Any] | None = None
    is_ignored: bool = False


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and the objects in it.

    Attributes:
        path: The image file.
        width: Width in pixels, with the EXIF orientation applied.
        height: Height, likewise.
        objects: The objects in the order of the annotations.
        split: ``train`` or ``val`` if the source specifies it.
        unlabeled: Areas without a class, whose pixels a segmentor ignores.
    """

    path: Path
    width: int
    height: int
    objects: tuple[AnnotatedObject, ...]
    split: str | None = None
    unlabeled: tuple[AnnotatedObject, ...] = ()


@dataclass(frozen=True)
class Annotations:
    """The content of a folder of annotations.

    Attributes:
        images: All images.
        classes: The names of the classes, in the order of the categories.
        left_out: How often something was left out, by description.
    """

    images: list[AnnotatedImage]
    classes: list[str]
    left_out: Counter[str] = field(default_factory=Counter)


def encode_mask(pixels: np.ndarray) -> dict[str, Any]:
    """Encodes a mask [height, width], bool, as COCO's compressed RLE."""
    return coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))


def find_files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """Lists all files below a folder with the given suffixes, sorted, except hidden ones.

    Raises:
        UserError: There is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f'there is no folder {folder}')
    paths = (Path(base, name) for base, _, names in os.walk(folder) for name in names)
    return sorted(
        path
        for path in paths
        if path.suffix.lower() in suffixes
        and not any(part.startswith('.') for part in path.relative_to(folder).parts)
    )


def find_image(name: str, folders: Iterable[Path], *, annotations: Path) -> Path:
    """Finds the image of an annotation file, by the name given there or by that of the file.

    Args:
        name: Name of the image in the annotation file; folders in it are ignored.
        folders: Where the image may be.
        annotations: The annotation file.

    Raises:
        UserError: The image is in none of the folders.
    """
    folders = list(dict.fromkeys(folders))
    name = name.replace('\\', '/').rpartition('/')[2]
    suffixes = [*IMAGE_SUFFIXES, *map(str.upper, IMAGE_SUFFIXES)]
    for candidate in filter(None, [name, *(f'{annotations.stem}{suffix}' for suffix in suffixes)]):
        for folder in folders:
            if (folder / candidate).is_file():
                return folder / candidate
    places = ' or '.join(map(str, folders))
    raise UserError(f'{annotations}: its image {name!r} is not in {places}')


def read_size(path: Path) -> tuple[int, int]:
    """Reads the width and height of an image as it is loaded for training.

    Raises:
        UserError: The file is not an image.
    """
    try:
        return read_header(path).shown_size
    except UnreadableInput as error:
        raise UserError(f'{path} {error}') from error


def clip_points(points: Sequence[float], size: tuple[int, int], *, place: str) -> tuple[float, ...]:
    """Moves points slightly outside an image to its border.

    Args:
        points: x1, y1, x2, y2, ... in pixels.
        size: Width and height of the image.
        place: Origin of the points, for the message.

    Returns:
        The points.

    Raises:
        UserError: A point is not a number or lies farther outside.
    """
    clipped = []
    for index, value in enumerate(points):
        side = size[index % 2]
        slack = max(1.0, _TOLERANCE * side)
        if not math.isfinite(value) or not -slack <= value <= side + slack:
            raise UserError(
                f'{place}: {"xy"[index % 2]} = {value:g} is outside of the image of '
                f'{size[0]} x {size[1]} pixels'
            )
        clipped.append(min(max(float(value), 0.0), float(side)))
    return tuple(clipped)


def enclose(
    polygons: Sequence[Sequence[float]], *, place: str
) -> tuple[float, float, float, float]:
    """Computes the box around polygons: x, y, width and height.

    Args:
        polygons: Each as x1, y1, x2, y2, ... in pixels.
        place: Origin of the polygons, for the message.

    Raises:
        UserError: The box is empty.
    """
    x = [value for polygon in polygons for value in polygon[0::2]]
    y = [value for polygon in polygons for value in polygon[1::2]]
    box = (min(x), min(y), max(x) - min(x), max(y) - min(y))
    if not (box[2] > 0 and box[3] > 0):
        raise UserError(
            f'{place}: the object is {box[2]:g} x {box[3]:g} pixels large; remove or redraw it'
        )
    return box


def split_of(path: Path, root: Path) -> str | None:
    """Returns ``train``, ``val`` or ``test`` if a folder above a file says so, or else None."""
    for folder in path.relative_to(root).parent.parts:
        for split in ('train', 'val', 'test'):
            if folder.lower().startswith(split):
                return split
    return None


def read_text(path: Path) -> str:
    """Reads a text file.

    Raises:
        UserError: It cannot be read, or is not UTF-8 text.
    """
    try:
        return path.read_text(encoding='utf-8-sig')
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is not text in UTF-8: {error}') from error
