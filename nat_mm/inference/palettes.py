"""Generates class colors, the same in every run, also where a config or checkpoint lacks some."""

import colorsys
from typing import Any

import numpy as np

Color = tuple[int, int, int]
"""Red, green, blue, from 0 to 255."""

_GOLDEN_RATIO = 0.618034


def make_palette(count: int) -> list[Color]:
    """Generates distinct colors, RGB from 0 to 255."""
    hues = (index * _GOLDEN_RATIO % 1 for index in range(count))
    colors = (colorsys.hsv_to_rgb(hue, 0.65, 0.95) for hue in hues)
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in colors]


def complete_palette(palette: Any, count: int) -> list[Color]:
    """Generates the colors that a palette lacks.

    Args:
        palette: List of [red, green, blue], from 0 to 255, one for each class, or a single color
            for the first class. Anything else, such as mmdet's ``'random'``, counts as missing.
        count: Number of classes.

    Returns:
        ``count`` colors. Existing colors stay with their class; the others are distinct.
    """
    if isinstance(palette, np.ndarray):
        palette = palette.tolist()
    given = [palette] if is_color(palette) else palette
    given = list(given[:count]) if isinstance(given, list | tuple) else []
    given += [None] * (count - len(given))
    kept = [
        (int(each[0]), int(each[1]), int(each[2])) if is_color(each) else None for each in given
    ]
    candidates = make_palette(2 * count)
    spare = (each for each in candidates[count:] if each not in kept)
    made_up = [each if each not in kept else next(spare, each) for each in candidates[:count]]
    return [each or other for each, other in zip(kept, made_up, strict=True)]


def is_color(value: Any) -> bool:
    """Whether a value is [red, green, blue], integers from 0 to 255."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) != 3:
        return False
    return all(isinstance(each, int | np.integer) and 0 <= each <= 255 for each in value)
