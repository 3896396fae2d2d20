"""Lets programs end quietly when nobody reads their output any more."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def perhaps_unread(*, interrupted: int = 1) -> Iterator[None]:
    """Ends the program quietly if its reader stops early, as ``head`` does.

    Args:
        interrupted: Exit code if the program wants to print more after that. One that only has its
            last lines left to print keeps its own exit code.

    Raises:
        BrokenPipeError: If a pipe other than standard output is broken.
        OSError: If standard output cannot be written for another reason.
    """
    try:
        yield
    except BrokenPipeError:
        if not _is_unread():
            raise  # another pipe
        _discard_output()
        sys.exit(interrupted)
    finally:
        try:
            if sys.stdout is not None:  # as it is if the shell closed it
                sys.stdout.flush()
        except BrokenPipeError:
            _discard_output()
        except OSError:  # such as a full disk
            _discard_output()
            raise


def _is_unread() -> bool:
    if sys.stdout is None:
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))  # only errors, since it asks for nothing


def _discard_output() -> None:
    """Discards what is left in the buffer, which Python flushes at exit, and all later output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
