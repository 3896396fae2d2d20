"""Reads nat_mm's environment variables."""

import os

from nat_mm.errors import UserError


def read_flag(name: str) -> bool | None:
    """Returns whether an environment variable turns something on; None if it is not set.

    Raises:
        UserError: If the variable is neither '0' nor '1'.
    """
    value = os.environ.get(name)
    if value not in (None, '0', '1'):
        raise UserError(f"the environment variable {name} must be '0' or '1', got {value!r}")
    return None if value is None else value == '1'
