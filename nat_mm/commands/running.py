"""Runs a command, and reports user errors in one line and with exit code 2."""

import errno
import signal
import sys
import textwrap
from collections.abc import Callable

from nat_mm.errors import CheckpointError, UserError
from nat_mm.output import perhaps_unread

INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C, as shells report it."""


def run_command(main: Callable[[], None]) -> None:
    """Runs a command, and reports mistakes of the user in one line on stderr with exit code 2.

    These are `UserError` and `CheckpointError`; a full disk is reported in the same way. Ctrl-C
    ends the command with a line and exit code 130. Any other exception is a bug in the program and
    keeps its traceback.

    Args:
        main: The command.
    """
    try:
        with perhaps_unread():
            main()
    except (UserError, CheckpointError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENOSPC:
            raise
        message = printable(' '.join(str(error).split()))
        print('error:', textwrap.shorten(message, 800, placeholder=' ...'), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('stopped by SIGINT', file=sys.stderr)
        sys.exit(INTERRUPTED)


def exit_on_signals() -> None:
    """Makes SIGINT and SIGTERM raise SystemExit, which ends what the command has started."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))


def printable(text: str) -> str:
    """Escapes control and unprintable characters, which the names of files may contain."""
    return ''.join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
