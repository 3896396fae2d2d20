"""Reads the names and colors of the classes from a checkpoint."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nat_mm.errors import CheckpointError


def read_classes(checkpoint: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Finds the names and colors of the classes.

    Args:
        checkpoint: Contents of the file.
        source: Name of the file, for errors.

    Returns:
        ``classes``, a list or tuple of names, and ``palette``, a list of [red, green, blue] from 0
        to 255, if the checkpoint has them: in ``meta`` under ``dataset_meta``, where mmengine saves
        them, or under ``CLASSES`` and ``PALETTE``, as in mmcv's older checkpoints.

    Raises:
        CheckpointError: If they have another format.
    """

    def check(value: Any, fits: Callable[[Any], bool], name: str, wanted: str) -> Any:
        if not fits(value):
            kind = type(value).__name__
            if isinstance(value, list | tuple):
                kind += f' of {", ".join(sorted({type(each).__name__ for each in value}))}'
            raise CheckpointError(f'{source}: {name} must be {wanted}, got a {kind}')
        return value

    meta = check(checkpoint.get('meta', {}), _is_mapping, 'meta', 'a dict')
    saved = check(meta.get('dataset_meta', {}), _is_mapping, 'meta.dataset_meta', 'a dict')
    check([*saved], _are_names, 'the keys of meta.dataset_meta', 'text')
    known = {name.lower(): value for name, value in saved.items()}
    for name in known:
        # Panoptic datasets also have thing_classes and stuff_classes.
        if name.endswith('classes') and known[name] is not None:
            check(known[name], _are_names, f'meta.dataset_meta.{name}', 'a list of names')
    found = {}
    classes = known.get('classes', meta.get('CLASSES'))
    if classes is not None:
        found['classes'] = check(classes, _are_names, 'the classes', 'a list of names')
    palette = known.get('palette', meta.get('PALETTE'))
    if palette is not None:
        colors = palette.tolist() if isinstance(palette, np.ndarray) else palette
        wanted = 'a list of colors such as [255, 0, 0]'
        found['palette'] = check(colors, _are_colors, 'the palette', wanted)
    return found


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


def _are_colors(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(color, list | tuple)
        and len(color) == 3
        and all(isinstance(each, int | float) and 0 <= each <= 255 for each in color)
        for color in value
    )
