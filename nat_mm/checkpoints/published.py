"""What the metafiles of the model zoo say of each model, and where else its weights are."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import yaml

import nat_mm

FOLDER = Path(nat_mm.__file__).parent / '.mim'
"""Contains ``configs`` and ``model-index.yml``; in a checkout they are links."""

_MIRRORS_FIRST: ContextVar[bool] = ContextVar('mirrors_first', default=False)


@functools.cache
def read_model_zoo() -> dict[str, dict]:
    """What the metafiles say of each model, by its name."""
    index = yaml.safe_load((FOLDER / 'model-index.yml').read_text(encoding='utf-8'))
    files = (yaml.safe_load((FOLDER / path).read_text('utf-8')) for path in index['Import'])
    return {entry['Name']: entry for file in files for entry in file['Models']}


def mirror_of(url: str) -> str | None:
    """Address on the Hugging Face Hub of what the authors publish at a URL, if it is there, too."""
    entries = read_model_zoo().values()
    return next((each.get('Mirror') for each in entries if each.get('Weights') == url), None)


@contextmanager
def mirrors_first(preferred: bool = True) -> Iterator[None]:
    """Downloads published weights from their mirrors first within a ``with`` block.

    Args:
        preferred: If False, this changes nothing: a mirror is used only if the URL does not answer,
            unless an enclosing block prefers mirrors.
    """
    token = _MIRRORS_FIRST.set(preferred or _MIRRORS_FIRST.get())
    try:
        yield
    finally:
        _MIRRORS_FIRST.reset(token)


def asks_mirrors_first() -> bool:
    """Whether the code runs within :func:`mirrors_first`."""
    return _MIRRORS_FIRST.get()
