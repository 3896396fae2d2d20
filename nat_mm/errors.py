"""Errors that are the user's to mend, and not faults of the program."""


class UserError(ValueError):
    """A mistake in what the user gave; the message says what would be right.

    Commands print it as one line and exit with code 2.
    """
