"""Defines the findings about data or a config."""

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
