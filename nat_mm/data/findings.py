"""Defines the findings about data or a config."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A problem, described in one line.

    Attributes:
        text: Names the file or the config's key, what is wrong with it, and what would be right.
        is_error: Whether training would fail or learn something other than intended. Otherwise it
            is a warning.
    """

    text: str
    is_error: bool = True


def shorten(values: Sequence[object], limit: int = 8) -> str:
    """Lists values for a message, up to a limit.

    Args:
        values: The values to list, each by its `repr`.
        limit: How many are listed; the rest are only counted.
    """
    shown = ', '.join(repr(value) for value in values[:limit])
    return f'{shown} and {len(values) - limit} more' if len(values) > limit else shown
