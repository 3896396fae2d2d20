"""Runs a command, and reports user errors in one line and with exit code 2."""

import io
import logging
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from errno import ENAMETOOLONG

from nat_mm.errors import DISK_ERRORS, CheckpointError, FileWriteError, UserError
from nat_mm.output import perhaps_unread
from nat_mm.signals import FORKS, end_by_next

INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C, as shells report it."""

STOPS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that stop a command: of a scheduler or ``kill``, and of a terminal that is closed."""


def run_command(main: Callable[[], None]) -> None:
    """Runs a command, and reports mistakes of the user in one line on stderr with exit code 2.

    These are `UserError` and `CheckpointError`. Files that cannot be written or may not be opened,
    and a full disk are reported in the same way. Ctrl-C ends the command with a line and exit code
    130, and SIGTERM and SIGHUP with 143 and 129; temporary files are removed. Any other exception
    is a bug in the program and keeps its traceback.

    Args:
        main: The command.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files may contain what the terminal's encoding lacks.
        sys.stdout.reconfigure(errors='backslashreplace')
    # If a log cannot be written, a traceback per line would hide what matters.
    logging.raiseExceptions = False
    exit_on_signals(STOPS)
    try:
        with perhaps_unread():
            main()
    except (UserError, CheckpointError, OSError) as error:
        if isinstance(error, OSError) and not _is_about_files(error):
            raise
        message = printable(' '.join(str(error).split()))
        print('error:', textwrap.shorten(message, 800, placeholder=' ...'), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('stopped by SIGINT', file=sys.stderr)
        sys.exit(INTERRUPTED)


def _is_about_files(error: OSError) -> bool:
    is_denied = isinstance(error, PermissionError) and error.filename is not None
    return (
        is_denied
        or isinstance(error, FileWriteError)
        or error.errno in (*DISK_ERRORS, ENAMETOOLONG)
    )


def exit_on_signals(numbers: Sequence[signal.Signals] = (signal.SIGINT, *STOPS)) -> None:
    """Makes signals raise SystemExit, which ends what the command has started.

    A second signal ends the process at once: another exception would do so amid the work of its
    threads, and libraries abort then. What the process ignores remains ignored, such as SIGHUP with
    ``nohup``, but not SIGINT, which shells ignore for background jobs of scripts, so that ``kill``
    can send it.

    Args:
        numbers: The signals.
    """
    numbers = [
        each
        for each in numbers
        if each == signal.SIGINT or signal.getsignal(each) is not signal.SIG_IGN
    ]

    def end(number: int, frame: object) -> None:
        end_by_next(numbers)
        sys.exit(128 + number)

    for number in numbers:
        signal.signal(number, end)
    FORKS.signals |= set(numbers)


def printable(text: str) -> str:
    """Escapes control and unprintable characters, which the names of files may contain."""
    return ''.join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
