"""How a command reports a mistake of its user."""

import sys
from collections.abc import Callable


class CommandError(Exception):
    """A mistake in what the user gave to a command; the message says what would be right."""


def run_command(main: Callable[[], None]) -> None:
    """Runs a command's ``main`` and turns a `CommandError` into one line and exit code 2.

    Any other exception is a fault of the program and keeps its traceback.

    Args:
        main: The command.
    """
    try:
        main()
    except CommandError as error:
        print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
        sys.exit(2)
