"""mmengine writes infinity into a config's text as ``inf``, which no config can be read with.

A run with ``val_interval=float('inf')`` thus leaves a config in its work directory with which it
cannot be resumed or tested.
"""

import functools
import io
import re
import tokenize
from types import ModuleType

from nat_mm.compat import NOT_REPORTED

BROKEN_IN = {'mmengine': '<0.11'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmengine.config.config',)
NAMES = ('inf', 'nan')


def repair(module: ModuleType) -> None:
    """Writes infinity as ``float('inf')``, and NaN likewise.

    Args:
        module: ``mmengine.config.config``.
    """
    read = module.Config.pretty_text.fget

    @functools.wraps(read)
    def pretty_text(self) -> str:
        return write_numbers(read(self))

    module.Config.pretty_text = property(pretty_text)


def write_numbers(text: str) -> str:
    """Replaces ``inf`` and ``nan`` in Python code, except in strings and as names of settings."""
    if not re.search(r'\b(inf|nan)\b', text):
        return text
    lines = text.splitlines(keepends=True)
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    # From the end, so that the places of the others stay.
    for token, following in reversed(list(zip(tokens, tokens[1:], strict=False))):
        is_number = token.type == tokenize.NAME and token.string in NAMES
        if is_number and following.string != '=':
            (row, start), (_, end) = token.start, token.end
            line = lines[row - 1]
            lines[row - 1] = f'{line[:start]}float({token.string!r}){line[end:]}'
    return ''.join(lines)
