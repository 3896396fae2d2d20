"""Conversion of a checkpoint file to another file."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nat_mm.checkpoints.files import (
    SUFFIXES,
    extract_state_dict,
    read_checkpoint,
    write_checkpoint,
)
from nat_mm.checkpoints.layouts import convert_weights, find_layout
from nat_mm.checkpoints.meta import read_classes
from nat_mm.checkpoints.weights import as_lazy


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        layout: Layout of the source: ``model``, ``huggingface`` or ``authors``.
        read: Number of tensors in the source.
        written: Number of tensors in the target.
    """

    layout: str
    read: int
    written: int


def convert_checkpoint(
    source: str, target: str, *, to: str = 'model', overwrite: bool = False
) -> Conversion:
    """Converts a checkpoint file.

    Of what the source holds beside weights, only the names and colours of the classes are kept,
    where the wanted layout has a place for them.

    Args:
        source: Local path or URL.
        target: Path of the result; its suffix, ``.pth``, ``.pt``, ``.bin`` or ``.safetensors``,
            tells the format. It is written whole or not at all.
        to: Layout of the result; see :func:`convert_weights`.
        overwrite: Whether ``target`` may exist.

    Returns:
        What was done.

    Raises:
        FileNotFoundError: If there is no such source, or no such folder for the target.
        FileExistsError: If ``target`` exists and ``overwrite`` is false.
        OSError: If the target cannot be written.
        ValueError: If the source cannot be read safely or converted, or the target's name is
            unsuitable.
    """
    path = Path(target)
    if path.suffix not in SUFFIXES:
        raise ValueError(f'the result must end with one of {", ".join(SUFFIXES)}, got {target}')
    if not path.parent.is_dir():
        raise FileNotFoundError(f'no such folder: {path.parent}')
    if path.is_dir():
        raise IsADirectoryError(f'{target} is a folder')
    if path.exists() and os.path.exists(source) and path.samefile(source):
        raise ValueError(f'{target} is the checkpoint to convert; name another file')
    if path.exists() and not overwrite:
        raise FileExistsError(f'{target} exists already')
    checkpoint = read_checkpoint(source)
    weights = as_lazy(extract_state_dict(checkpoint, source))
    converted = convert_weights(weights, to=to, source=source)
    write_checkpoint(path, converted, meta=_meta(checkpoint, to, source))
    return Conversion(find_layout(weights), len(weights), len(converted))


def _meta(checkpoint: Mapping[str, Any], to: str, source: str) -> dict[str, Any] | None:
    """The classes, as mmengine has them, or, for the authors' layout, mmcv before it."""
    classes = read_classes(checkpoint, source)
    if to == 'model':
        return {'dataset_meta': classes} if classes else {}
    if to == 'authors' and classes:
        return {name.upper(): value for name, value in classes.items()}
    return None
