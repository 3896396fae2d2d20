"""Colors of classes where a config or a checkpoint has too few."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nat_mm.inference.results import make_palette

Color = tuple[int, int, int]


def complete_palette(palette: Any, count: int) -> list[Color]:
    """Makes up the colors that a palette lacks.

    Args:
        palette: List of [red, green, blue], from 0 to 255, one for each class; whatever else it is
            counts as lacking.
        count: Number of classes.

    Returns:
        ``count`` colors. Those that the palette has stay with their class.
    """
    given = [each if is_color(each) else None for each in _as_list(palette)[:count]]
    kept = [each and tuple(int(value) for value in each) for each in given]
    kept += [None] * (count - len(kept))
    new = iter([each for each in make_palette(2 * count) if each not in kept])
    return [each or next(new) for each in kept]


def is_color(value: Any) -> bool:
    """Whether this is [red, green, blue], whole numbers from 0 to 255."""
    if not isinstance(value, list | tuple) or len(value) != 3:
        return False
    return all(isinstance(each, int | np.integer) and 0 <= each <= 255 for each in value)


def _as_list(palette: Any) -> Sequence[Any]:
    if isinstance(palette, np.ndarray):
        return palette.tolist()
    return palette if isinstance(palette, list | tuple) else []
