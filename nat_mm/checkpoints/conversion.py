"""Converts a checkpoint file to another file, with one tensor in memory at a time."""

import dataclasses
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from nat_mm.checkpoints.layouts import convert_weights, find_layout
from nat_mm.checkpoints.meta import read_classes
from nat_mm.checkpoints.reading import extract_state_dict, read_checkpoint
from nat_mm.compat.whole_checkpoints import CheckedOutput
from nat_mm.errors import one_line
from nat_mm.files import check_is_text, write_errors

SUFFIXES = ('.pth', '.pt', '.bin', '.safetensors')


@dataclasses.dataclass(frozen=True)
class Conversion:
    """Result of a conversion.

    Attributes:
        layout: Layout of the source, such as ``authors``.
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

    Besides the weights, only the names and colors of the classes are kept, if the layout of the
    result has a place for them.

    Args:
        source: Local path or URL.
        target: Path of the result; its suffix, ``.pth``, ``.pt``, ``.bin`` or ``.safetensors``,
            determines the format. The file is written completely or not at all; meanwhile, a
            temporary folder next to it needs up to twice its size.
        to: Layout of the result; see :func:`convert_weights`.
        overwrite: Whether ``target`` may exist.

    Returns:
        The layout and numbers of tensors.

    Raises:
        FileNotFoundError: If the source or the target's folder does not exist.
        FileExistsError: If ``target`` exists and ``overwrite`` is false.
        FileWriteError: If the target cannot be written.
        ValueError: If the source cannot be read safely or converted, or the target's name is
            unsuitable.
    """
    path = Path(target)
    if path.suffix not in SUFFIXES:
        raise ValueError(f'the result must end with one of {", ".join(SUFFIXES)}, got {target}')
    check_is_text(path, name='the result')
    if not path.parent.is_dir():
        raise FileNotFoundError(f'no such folder: {path.parent}')
    if path.is_dir():
        raise IsADirectoryError(f'{target} is a folder')
    local = os.path.expanduser(source)
    if path.exists() and os.path.exists(local) and path.samefile(local):
        raise ValueError(f'{target} is the checkpoint to convert; name another file')
    if path.exists() and not overwrite:
        raise FileExistsError(f'{target} exists already')
    checkpoint = read_checkpoint(source)
    weights = extract_state_dict(checkpoint, source)
    classes = read_classes(checkpoint, source)
    # Short names, since that of the result may have the maximum length.
    with write_errors(path), TemporaryDirectory(prefix='.unfinished.', dir=path.parent) as folder:
        concatenate = functools.partial(_concatenate_on_disk, Path(folder, 'part'))
        converted = convert_weights(weights, to=to, source=source, concatenate=concatenate)
        # Both formats would store the whole base of a view, so no tensor may be a view of another.
        tensors = {key: concatenate([tensor]) for key, tensor in converted.items()}
        unfinished = Path(folder, f'weights{path.suffix}')
        _write(unfinished, tensors, _meta(classes, to))
        os.replace(unfinished, path)
    return Conversion(find_layout(weights) or '', len(weights), len(converted))


def _meta(classes: dict[str, Any], to: str) -> dict[str, Any] | None:
    """Returns the classes as mmengine stores them or, in the authors' layout, as mmcv used to."""
    if to == 'model':
        return {'dataset_meta': classes} if classes else {}
    if to == 'authors' and classes:
        return {name.upper(): value for name, value in classes.items()}
    return None


def _concatenate_on_disk(path: Path, tensors: list[torch.Tensor]) -> torch.Tensor:
    """Concatenates tensors in a memory-mapped file, so that the result takes up no memory."""
    first = tensors[0]
    shape = first.shape if len(tensors) == 1 else (len(tensors) * first.shape[0], *first.shape[1:])
    size = len(tensors) * first.numel()
    if not size:
        return first.new_empty(shape)
    with path.open('wb') as file:
        # A full disk must raise an error here; writing to the mapping would kill the process.
        os.posix_fallocate(file.fileno(), 0, size * first.element_size())
    stored = torch.from_file(str(path), shared=True, size=size, dtype=first.dtype).view(shape)
    path.unlink()
    if len(tensors) == 1:
        return stored.copy_(first)
    return torch.cat(tensors, out=stored)


def _write(path: Path, tensors: Mapping[str, torch.Tensor], meta: dict[str, Any] | None) -> None:
    """Writes weights and ``meta``, which is stored next to them or as JSON in the header."""
    path.touch()
    mode = path.stat().st_mode
    # safetensors raises its own errors on a full disk.
    try:
        if path.suffix == '.safetensors':
            from safetensors.torch import save_file

            # transformers requires the format.
            header = {'format': 'pt'} | ({} if meta is None else {'meta': json.dumps(meta)})
            save_file(dict(tensors), path, metadata=header)
        else:
            with path.open('wb') as file:
                output = CheckedOutput(file)
                torch.save(
                    tensors if meta is None else {'meta': meta, 'state_dict': tensors}, output
                )
                output.check()
    except OSError:
        raise
    except Exception as error:
        raise OSError(one_line(error)) from error
    # safetensors creates files that other users cannot read.
    path.chmod(mode)
