"""Defines how long checks report their progress."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, the amount done, and the total amount."""


def no_progress(what: str, done: int, total: int) -> None:
    """A `Progress` that does nothing."""
