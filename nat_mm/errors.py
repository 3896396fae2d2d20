"""Errors that the user can fix, as opposed to bugs."""

import traceback
from collections.abc import Sequence
from errno import EDQUOT, EFBIG, ENOSPC, EROFS
from typing import Any

DISK_ERRORS = (ENOSPC, EDQUOT, EFBIG, EROFS)
"""Error numbers of a full or read-only disk, whichever file was to be written."""


class UserError(ValueError):
    """A mistake in the user's input; the message says what would be right.

    Commands print it as one line and exit with code 2.
    """


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one line that names it and says why."""


class PretrainedError(CheckpointError):
    """A pretrained checkpoint that cannot be loaded into a backbone."""


class FileWriteError(OSError):
    """A file that cannot be written; the message is one line that names it and says why."""

    def __str__(self) -> str:
        return f'cannot write {self.filename}: {self.strerror}'


def brief(value: Any) -> str:
    """Describes a value for a message: a number or text itself, otherwise its type and shape."""
    if value is None or isinstance(value, str | int | float):
        return repr(value)[:80]
    if hasattr(value, 'shape'):
        return f'a {type(value).__name__} of shape {list(value.shape)}'
    return f'a {type(value).__name__}'


def shorten(values: Sequence[object], limit: int = 8) -> str:
    """Lists values for a message, up to a limit.

    Args:
        values: The values to list, each by its `repr`.
        limit: How many are listed; the rest are only counted.

    Returns:
        The values with commas between them, or 'nothing' if there are none.
    """
    shown = ', '.join(map(repr, values[:limit])) or 'nothing'
    return f'{shown} and {len(values) - limit} more' if len(values) > limit else shown


def one_line(error: BaseException) -> str:
    """Returns the text of an exception without line breaks, at most 300 characters of it."""
    return ' '.join(str(error).split())[:300]


def describe_error(error: BaseException) -> str:
    """Names the type of an exception and its text or, if it has none, the line that raised it."""
    text = str(error).strip()
    if not text:
        frames = traceback.extract_tb(error.__traceback__)
        text = frames[-1].line or '' if frames else ''
    return f'{type(error).__name__}: {text}' if text else type(error).__name__
