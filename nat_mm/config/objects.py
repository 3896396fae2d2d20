"""Finds the objects that a config describes, and the names of their classes."""

from collections.abc import Iterable, Iterator
from typing import Any


def walk_dicts(value: Any, path: str = '') -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the dicts inside a config, with their keys such as ``model.backbone``."""
    children: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        yield path, value
        children = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value)
    for name, child in children:
        yield from walk_dicts(child, f'{path}.{name}' if path else str(name))


def type_name(settings: Any) -> str:
    """Returns the name of the class that a config names by text or, in pure Python, by itself."""
    kind = settings.get('type')
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]
