"""Finds the objects that a config describes, and their classes."""

from collections.abc import Iterable, Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry


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


def type_name(settings: Any, default: str | None = None) -> str:
    """Returns the name of the class that a config names by text or, in pure Python, by itself."""
    kind = settings.get('type', default)
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def find_class(registry: Registry, settings: dict[str, Any], config: Config) -> type | None:
    """Finds the class that a config names.

    Args:
        registry: mmengine's root registry of such classes, which itself knows none of a toolbox's.
        settings: Config of an object.
        config: Config of the run.

    Returns:
        The class; None if ``type`` is missing, unknown or a function.
    """
    kind = settings.get('type')
    if isinstance(kind, str):
        with (
            DefaultScope.overwrite_default_scope(config.default_scope),
            registry.switch_scope_and_registry(settings.get('_scope_')) as scoped,
        ):
            kind = scoped.get(kind)
    return kind if isinstance(kind, type) else None
