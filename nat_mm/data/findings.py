"""What is found wrong with data or a config."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, in one line.

    Attributes:
        text: Names the file or the config's key, what is wrong with it, and what would be right.
        is_error: Whether training would fail or learn something else than the user wants.
            Otherwise it is a warning.
    """

    text: str
    is_error: bool = True


def shorten(values: Sequence[object], limit: int = 8) -> str:
    """Lists values for a message, at most so many of them.

    Args:
        values: What is listed, each as `repr` shows it.
        limit: How many are listed before the rest is only counted.
    """
    shown = ', '.join(repr(value) for value in values[:limit])
    return f'{shown} and {len(values) - limit} more' if len(values) > limit else shown
