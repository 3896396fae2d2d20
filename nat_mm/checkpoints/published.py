"""Reads the model zoo's metafiles, including the mirrors of each model's weights."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import yaml

import nat_mm

FOLDER = Path(nat_mm.__file__).parent / '.mim'
"""Contains ``configs`` and ``model-index.yml``, which are links in a checkout."""

_MIRRORS_FIRST: ContextVar[bool] = ContextVar('mirrors_first', default=False)


@functools.cache
def read_model_zoo() -> dict[str, dict]:
    """Returns the metafile entry of each model, by name."""
    loader = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)  # the first takes a tenth of the time

    def read(path: str) -> dict:
        return yaml.load((FOLDER / path).read_text(encoding='utf-8'), loader)

    files = map(read, read('model-index.yml')['Import'])
    return {entry['Name']: entry for file in files for entry in file['Models']}


def mirror_of(url: str) -> str | None:
    """Returns the Hugging Face Hub address of a file that the authors publish at a URL, if any."""
    entries = read_model_zoo().values()
    return next((each.get('Mirror') for each in entries if each.get('Weights') == url), None)


@contextmanager
def mirrors_first(preferred: bool = True) -> Iterator[None]:
    """Downloads published weights from their mirrors first within a ``with`` block.

    Args:
        preferred: If False, nothing changes: a mirror is used only if the URL does not respond,
            unless an enclosing block prefers mirrors.
    """
    token = _MIRRORS_FIRST.set(preferred or _MIRRORS_FIRST.get())
    try:
        yield
    finally:
        _MIRRORS_FIRST.reset(token)


def asks_mirrors_first() -> bool:
    """Returns whether the calling code runs within a :func:`mirrors_first` block."""
    return _MIRRORS_FIRST.get()
