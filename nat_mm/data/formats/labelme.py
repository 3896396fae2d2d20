"""Reads labelme's format: a JSON file with polygons and other shapes for each image."""

import base64
import io
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from nat_mm.compat.postscript import open_image
from nat_mm.data.formats.annotated import (
    AnnotatedImage,
    AnnotatedObject,
    Annotations,
    clip_points,
    enclose,
    encode_mask,
    find_files,
    find_image,
    read_size,
    read_text,
    split_of,
)
from nat_mm.errors import UserError, brief

_IGNORED = '__ignore__'
_BACKGROUND = '_background_'
_WITHOUT_AREA = ('point', 'points', 'line', 'linestrip')
_CORNERS_OF_CIRCLE = 64


def read_labelme(source: Path) -> Annotations:
    """Reads a folder in labelme's format.

    Shapes with the same label and group form one object. Points and lines are left out, as are
    shapes named ``_background_`` and ``__ignore__``; label images ignore the pixels of the latter.
    Folders with names starting with ``train`` and ``val`` are the splits; those starting with
    ``test`` are left out.

    Args:
        source: The folder. The images are where the ``imagePath`` of the JSON files says, or next
            to these files; a ``labels.txt`` may list the names of the classes.

    Returns:
        The annotations; classes are in the order of ``labels.txt``, or else alphabetical.

    Raises:
        UserError: There is nothing to read, or something is wrong with a file.
    """
    files = find_files(source, ('.json',))
    if not files:
        raise UserError(f'{source} has no annotations: there is no .json file in it')
    annotations = Annotations([], [])
    for file in files:
        split = split_of(file, source)
        if split == 'test':
            annotations.left_out['images of the test split'] += 1
        else:
            annotations.images.append(_read_image(file, split, annotations.left_out))
    found = {each.name for image in annotations.images for each in image.objects}
    annotations.classes.extend(_order_classes(source / 'labels.txt', found))
    return annotations


def _order_classes(path: Path, found: set[str]) -> list[str]:
    if not path.is_file():
        return sorted(found)
    lines = [line.strip() for line in read_text(path).splitlines()]
    listed = [name for name in lines if name not in ('', _IGNORED, _BACKGROUND)]
    missing = sorted(found - set(listed))
    if missing:
        raise UserError(f'{path} does not list the label {missing[0]!r}')
    return listed


def _read_image(file: Path, split: str | None, left_out: Counter[str]) -> AnnotatedImage:
    try:
        content = json.loads(read_text(file))
    except ValueError as error:
        raise UserError(f'{file} is not JSON: {error}') from error
    shapes = content.get('shapes') if isinstance(content, dict) else None
    if not isinstance(shapes, list):
        raise UserError(f'{file} is not from labelme: it has no list of shapes')
    path = _find_image(str(content.get('imagePath') or ''), file)
    size = read_size(path)
    written = content.get('imageWidth'), content.get('imageHeight')
    if None not in written and written != size:
        raise UserError(
            f'{file} is for an image of {written[0]} x {written[1]} pixels, but {path} has '
            f'{size[0]} x {size[1]}'
        )
    groups: dict[Any, list[AnnotatedObject]] = {}
    unlabeled = []
    for number, shape in enumerate(shapes, start=1):
        place = f'{file}, shape {number}'
        name = shape.get('label') if isinstance(shape, dict) else None
        if not isinstance(name, str) or not name.strip():
            raise UserError(f'{place} must be an object with a label, got {brief(shape)}')
        place = f'{place} ({name})'
        kind = shape.get('shape_type') or 'polygon'
        if kind in _WITHOUT_AREA:
            left_out[f'shapes of type {kind}'] += 1
            continue
        each = _read_shape(shape, kind, size, place)
        if name in (_IGNORED, _BACKGROUND):
            left_out[f'shapes named {name}'] += 1
            if name == _IGNORED:
                unlabeled.append(each)
            continue
        group = shape.get('group_id')
        groups.setdefault(number if group is None else (name, str(group)), []).append(each)
    objects = tuple(_join(group, file) for group in groups.values())
    return AnnotatedImage(path, *size, objects, split, tuple(unlabeled))


def _find_image(name: str, file: Path) -> Path:
    """Finds the image where the JSON file says, or next to that file."""
    path = file.parent / name.replace('\\', '/')
    return path if name and path.is_file() else find_image(name, [file.parent], annotations=file)


def _read_shape(
    shape: dict[str, Any], kind: str, size: tuple[int, int], place: str
) -> AnnotatedObject:
    name = shape['label']
    points = _read_points(shape.get('points'), place)
    if kind == 'mask':
        return _read_mask(shape.get('mask'), name, points, size, place)
    if kind == 'rectangle' and len(points) == 2:
        (left, top), (right, bottom) = points
        points = [(left, top), (right, top), (right, bottom), (left, bottom)]
    elif kind == 'circle' and len(points) == 2:
        points = _draw_circle(*points, size)
    elif kind not in ('polygon', 'rectangle', 'oriented_rectangle'):
        raise UserError(f'{place}: shape_type {kind!r} with {len(points)} points is unknown')
    if len(points) < 3:
        raise UserError(f'{place}: a {kind} of {len(points)} points has no area')
    polygon = clip_points([value for point in points for value in point], size, place=place)
    return AnnotatedObject(name, enclose([polygon], place=place), (polygon,))


def _read_points(points: Any, place: str) -> list[tuple[float, float]]:
    try:
        pairs = [(float(x), float(y)) for x, y in points]
    except (TypeError, ValueError):
        pairs = []
    if not pairs or not all(math.isfinite(value) for pair in pairs for value in pair):
        raise UserError(f'{place}: points must be pairs of numbers, got {str(points)[:60]}')
    return pairs


def _draw_circle(
    center: tuple[float, float], edge: tuple[float, float], size: tuple[int, int]
) -> list[tuple[float, float]]:
    """Returns points on the circle; those outside the image are moved to its border."""
    radius = math.dist(center, edge)
    angles = (2 * math.pi * step / _CORNERS_OF_CIRCLE for step in range(_CORNERS_OF_CIRCLE))
    return [
        tuple(
            min(max(middle + radius * turn(angle), 0.0), float(side))
            for middle, turn, side in zip(center, (math.cos, math.sin), size, strict=True)
        )
        for angle in angles
    ]


def _read_mask(
    mask: Any, name: str, points: list[tuple[float, float]], size: tuple[int, int], place: str
) -> AnnotatedObject:
    """Reads an object whose pixels are given as a PNG with its corner at the first point."""
    try:
        with open_image(io.BytesIO(base64.b64decode(mask, validate=True))) as image:
            pixels = np.array(image.convert('L')) > 0
    except (TypeError, ValueError, SyntaxError, OSError, Image.DecompressionBombError):
        raise UserError(f'{place}: mask must be a PNG in base64') from None
    left, top = (round(value) for value in points[0])
    height, width = pixels.shape
    if left < 0 or top < 0 or left + width > size[0] or top + height > size[1]:
        raise UserError(
            f'{place}: a mask of {width} x {height} pixels at {left}, {top} is outside of the '
            f'image of {size[0]} x {size[1]}'
        )
    if not pixels.any():
        raise UserError(f'{place}: the mask is empty')
    whole = np.zeros(size[::-1], bool)
    whole[top : top + height, left : left + width] = pixels
    return _from_mask(name, encode_mask(whole))


def _from_mask(name: str, mask: dict[str, Any]) -> AnnotatedObject:
    x, y, width, height = coco_mask.toBbox(mask).tolist()
    return AnnotatedObject(name, (x, y, width, height), mask=mask)


def _join(group: list[AnnotatedObject], file: Path) -> AnnotatedObject:
    """Joins several shapes into one object."""
    first = group[0]
    if len(group) == 1:
        return first
    masks = [each.mask for each in group if each.mask is not None]
    polygons = tuple(polygon for each in group for polygon in each.polygons)
    if masks and polygons:
        raise UserError(
            f'{file}: a group of {first.name} has both masks and polygons: draw all of it the '
            f'same way'
        )
    if masks:
        return _from_mask(first.name, coco_mask.merge(masks))
    return AnnotatedObject(first.name, enclose(polygons, place=str(file)), polygons)
