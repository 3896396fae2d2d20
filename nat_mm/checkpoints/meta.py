"""The names and colors of the classes that a checkpoint brings."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nat_mm.compat.checkpoints import CheckpointError


def read_classes(checkpoint: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Finds the names and colors of the classes.

    Args:
        checkpoint: What the file holds.
        source: Name of the file, for errors.

    Returns:
        ``classes``, a list or tuple of names, and ``palette``, one of [red, green, blue] from 0 to
        255, as far as they are there: in ``meta`` under ``dataset_meta``, where mmengine saves
        them, or under ``CLASSES`` and ``PALETTE``, as mmcv did before it.

    Raises:
        CheckpointError: If they are something else.
    """
    meta = _mapping(checkpoint.get('meta', {}), 'meta', source)
    saved = _mapping(meta.get('dataset_meta', {}), 'meta.dataset_meta', source)
    if not all(isinstance(name, str) for name in saved):
        raise CheckpointError(f'{source}: the names in meta.dataset_meta must be text')
    known = {name.lower(): value for name, value in saved.items()}
    for name, value in known.items():
        # Panoptic data have thing_classes and stuff_classes, too.
        if name.endswith('classes'):
            _names(value, f'meta.dataset_meta.{name}', source)
    found = {
        'classes': _names(known.get('classes', meta.get('CLASSES')), 'the classes', source),
        'palette': _colors(known.get('palette', meta.get('PALETTE')), 'the palette', source),
    }
    return {name: value for name, value in found.items() if value is not None}


def _mapping(value: Any, name: str, source: str) -> Mapping:
    if not isinstance(value, Mapping):
        raise CheckpointError(f'{source}: {name} must be a dict, got a {type(value).__name__}')
    return value


def _names(value: Any, name: str, source: str) -> list[str] | tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise CheckpointError(f'{source}: {name} must be a list of names, got {_brief(value)}')
    return value


def _colors(value: Any, name: str, source: str) -> list | tuple | None:
    if value is None:
        return None
    colors = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(colors, list | tuple) or not all(map(_is_color, colors)):
        raise CheckpointError(
            f'{source}: {name} must be a list of colors such as [255, 0, 0], got {_brief(value)}'
        )
    return colors


def _is_color(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(each, int | float) and 0 <= each <= 255 for each in value)
    )


def _brief(value: Any) -> str:
    if isinstance(value, list | tuple):
        kinds = sorted({type(each).__name__ for each in value})
        return f'a {type(value).__name__} of {", ".join(kinds) or "nothing"}'
    return f'a {type(value).__name__}'
