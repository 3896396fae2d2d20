"""Converts label images to single-channel PNGs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nat_mm.compat.postscript import open_image
from nat_mm.data.image_headers import is_jpeg
from nat_mm.errors import UserError, shorten
from nat_mm.files import write_image
from nat_mm.inference.images import IMAGE_SUFFIXES, check_not_overwritten

Color = tuple[int, int, int]
_MOST_SHOWN = 4
_WITHOUT_ALPHA = {'RGBA': 'RGB', 'LA': 'L', 'PA': 'P'}


def parse_mapping(entries: Sequence[str]) -> tuple[dict[int, int], dict[Color, int]]:
    """Parses entries such as ``255=1`` and ``128,0,0=3``.

    Args:
        entries: Each maps the value or color on the left to the value on the right.

    Returns:
        New values by old value, and by color (red, green, blue).

    Raises:
        UserError: Entries have another form, or give a value or color different new values.
    """
    entries_of: dict[tuple[int, ...], dict[int, str]] = {}
    wrong = []
    for entry in entries:
        old, _, new = entry.partition('=')
        try:
            numbers = tuple(map(int, old.split(',')))
            value = int(new)
        except ValueError:
            wrong.append(entry)
            continue
        is_known = len(numbers) == 1 or (len(numbers) == 3 and max(numbers) <= 255)
        if is_known and min(numbers) >= 0 and 0 <= value <= 255:
            entries_of.setdefault(numbers, {})[value] = entry
        else:
            wrong.append(entry)
    if wrong:
        raise UserError(
            '--map takes entries such as 255=1, or 128,0,0=3 for a color, with colors and new '
            f'values from 0 to 255, got {shorten(wrong)}'
        )
    twice = [' '.join(each.values()) for each in entries_of.values() if len(each) > 1]
    if twice:
        raise UserError(
            f'--map has several new values for the same value or color: {shorten(twice)}; keep one'
        )
    mapping = {old: value for old, each in entries_of.items() for value in each}
    values = {old[0]: value for old, value in mapping.items() if len(old) == 1}
    colors = {(old[0], old[1], old[2]): new for old, new in mapping.items() if len(old) == 3}
    return values, colors


def convert_labels(
    labels: Path,
    out_dir: Path,
    *,
    values: Mapping[int, int],
    colors: Mapping[Color, int],
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
        UserError: There are no label images, one cannot be read, is a JPEG or has a color or value
            that cannot be converted, or the results would overwrite label images or each other.
    """
    paths = sorted(path for path in labels.rglob('*') if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise UserError(f'{labels} has no label images')
    results = {path: out_dir / path.relative_to(labels).with_suffix('.png') for path in paths}
    if len(set(results.values())) < len(paths):
        raise UserError(f'{labels} has label images that differ only in the suffix of their names')
    check_not_overwritten(paths, [out_dir, *results.values()])
    pixels = np.zeros(256, np.int64)
    for path in paths:
        # Convert all before writing the first, in case one is refused.
        pixels += np.bincount(_convert(path, values, colors).ravel(), minlength=256)
    for path, result in results.items():
        write_image(result, _convert(path, values, colors))
    return {int(value): int(pixels[value]) for value in np.flatnonzero(pixels)}


def _convert(path: Path, values: Mapping[int, int], colors: Mapping[Color, int]) -> np.ndarray:
    try:
        with open_image(path) as image:
            is_lossy = is_jpeg(image)
            # Palette images yield their indices here, and 1-bit images 0 and 1.
            array = np.asarray(image.convert(_WITHOUT_ALPHA.get(image.mode, image.mode)))
    except Exception as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    if is_lossy:
        raise UserError(
            f'{path} is a JPEG, whose compression changes the values of pixels: save the labels as '
            'PNGs from the annotations'
        )
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
    odd = np.unique(new[(new < 0) | (new > 255)]).tolist()
    if odd:
        advice = ' '.join(f'{value}=CLASS' for value in odd[:_MOST_SHOWN])
        raise UserError(
            f'{path} has the {"value" if len(odd) == 1 else "values"} {shorten(odd, _MOST_SHOWN)}, '
            f'but labels have 0 to 255: add --map {advice}'
        )
    return new.astype(np.uint8)


def _convert_colors(path: Path, array: np.ndarray, colors: Mapping[Color, int]) -> np.ndarray:
    codes = array[..., :3].astype(np.int64) @ [65536, 256, 1]
    new = np.full(codes.shape, -1)
    for (red, green, blue), number in colors.items():
        new[codes == red * 65536 + green * 256 + blue] = number
    if new.min() < 0:
        row, column = np.argwhere(new < 0)[0]
        odd = ','.join(map(str, array[row, column, :3].tolist()))
        others = [
            ','.join(map(str, (code >> 16, code >> 8 & 255, code & 255)))
            for code in np.unique(codes[new < 0]).tolist()
            if code != codes[row, column]
        ]
        more = f'. The same holds for {shorten(others, _MOST_SHOWN)}' if others else ''
        raise UserError(
            f'{path} has the color {odd} at row {row}, column {column}, which --map does not '
            f'name: add {odd}=CLASS, or {odd}=255 to ignore it{more}'
        )
    return new.astype(np.uint8)
