"""Converts label images to single-channel PNGs."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from nat_mm.errors import UserError
from nat_mm.files import write_image
from nat_mm.inference.images import SUFFIXES

Color = tuple[int, int, int]
_WITHOUT_ALPHA = {'RGBA': 'RGB', 'LA': 'L', 'PA': 'P'}


def parse_mapping(entries: Sequence[str]) -> tuple[dict[int, int], dict[Color, int]]:
    """Parses entries such as ``255=1`` and ``128,0,0=3``.

    Args:
        entries: Each maps the value or color on the left to the value on the right.

    Returns:
        New values by old value, and by color (red, green, blue).

    Raises:
        UserError: An entry has another form.
    """
    values: dict[int, int] = {}
    colors: dict[Color, int] = {}
    for entry in entries:
        old, _, new = entry.partition('=')
        try:
            numbers = [int(each) for each in old.split(',')]
            value = int(new)
        except ValueError:
            numbers, value = [], -1
        if not 0 <= value <= 255 or min(numbers, default=-1) < 0 or len(numbers) not in (1, 3):
            raise UserError(
                f'--map takes entries such as 255=1, or 128,0,0=3 for a color, with new values '
                f'from 0 to 255, got {entry!r}'
            )
        if len(numbers) == 1:
            values[numbers[0]] = value
        else:
            colors[numbers[0], numbers[1], numbers[2]] = value
    return values, colors


def convert_labels(
    labels: Path,
    out_dir: Path,
    *,
    values: Mapping[int, int] | None = None,
    colors: Mapping[Color, int] | None = None,
) -> dict[int, int]:
    """Converts the label images in a folder and writes them as PNGs with the same names.

    Args:
        labels: The folder; its subfolders are searched, too.
        out_dir: Folder for the results.
        values: New values by old value; other values stay.
        colors: New values by color (red, green, blue). Without any, the channels of an image must
            be equal.

    Returns:
        Number of pixels with each value.

    Raises:
        UserError: There are no label images, one cannot be read or has a color or value that cannot
            be converted, or the results would overwrite label images or each other.
    """
    paths = sorted(path for path in labels.rglob('*') if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f'{labels} has no label images')
    if os.path.realpath(labels) == os.path.realpath(out_dir):
        raise UserError(f'{out_dir} would be overwritten: choose another folder for the results')
    results = {path: out_dir / path.relative_to(labels).with_suffix('.png') for path in paths}
    if len(set(results.values())) < len(paths):
        raise UserError(f'{labels} has label images that differ only in the suffix of their names')
    pixels = np.zeros(256, np.int64)
    for path in paths:
        # Convert all before writing the first, in case one is refused.
        pixels += np.bincount(_convert(path, values or {}, colors or {}).ravel(), minlength=256)
    for path, result in results.items():
        write_image(result, _convert(path, values or {}, colors or {}))
    return {int(value): int(pixels[value]) for value in np.flatnonzero(pixels)}


def _convert(path: Path, values: Mapping[int, int], colors: Mapping[Color, int]) -> np.ndarray:
    try:
        with Image.open(path) as image:
            # Palette images yield their indices here, and 1-bit images 0 and 1.
            array = np.asarray(image.convert(_WITHOUT_ALPHA.get(image.mode, image.mode)))
    except Exception as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    if array.ndim == 3 and colors:
        return _convert_colors(path, array, colors)
    if array.ndim == 3:
        if (array[..., :1] != array).any():
            raise UserError(
                f'{path} has colors: give each the number of its class, such as --map 128,0,0=3'
            )
        array = array[..., 0]
    old = array.astype(np.int64)
    new = old.copy()
    for value, number in values.items():
        new[old == value] = number
    if new.min() < 0 or new.max() > 255:
        odd = int(new[(new < 0) | (new > 255)][0])
        raise UserError(f'{path} has the value {odd}: give it one up to 255, such as --map {odd}=1')
    return new.astype(np.uint8)


def _convert_colors(path: Path, array: np.ndarray, colors: Mapping[Color, int]) -> np.ndarray:
    codes = array[..., :3].astype(np.int64) @ [65536, 256, 1]
    new = np.full(codes.shape, -1)
    for (red, green, blue), number in colors.items():
        new[codes == red * 65536 + green * 256 + blue] = number
    if new.min() < 0:
        row, column = np.argwhere(new < 0)[0]
        odd = ','.join(map(str, array[row, column, :3].tolist()))
        raise UserError(
            f'{path} has the color {odd} at row {row}, column {column}, which --map does not '
            f'name: add {odd}=CLASS, or {odd}=255 to ignore it'
        )
    return new.astype(np.uint8)
