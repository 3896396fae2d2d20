"""Checkpoint files: reading without running code in them, writing whole or not at all."""

import json
import os
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.runner import CheckpointLoader

from nat_mm.checkpoints.weights import LazyTensor, LazyWeights
from nat_mm.compat.checkpoints import CheckpointError, read_safely

SUFFIXES = ('.pth', '.pt', '.bin', '.safetensors')


def read_checkpoint(
    source: str, *, map_location: str | torch.device | None = 'cpu'
) -> Mapping[str, Any]:
    """Reads a checkpoint; of a local file, tensors are only mapped into memory, not read.

    Args:
        source: Local path or URL. Local files whose name ends with ``.safetensors`` are read as
            such, all others with PyTorch's ``weights_only=True``, so that no code in them runs.
        map_location: Device of the tensors.

    Returns:
        What the file holds; of a safetensors file, its tensors under ``state_dict``.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is damaged, holds no dict, or holds what might run code.
    """
    path = os.path.expanduser(source)
    if '://' in source:
        checkpoint = CheckpointLoader.load_checkpoint(source, map_location=map_location)
    elif not os.path.isfile(path):
        raise FileNotFoundError(f'{source} can not be found.')
    elif path.endswith('.safetensors'):
        checkpoint = _read_safetensors(path, map_location)
    else:
        # Only zip files can be mapped.
        checkpoint = read_safely(
            source,
            lambda: torch.load(
                path,
                map_location=map_location,
                weights_only=True,
                mmap=zipfile.is_zipfile(path),
            ),
        )
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f'{source} holds no state dict but a {type(checkpoint).__name__}')
    return checkpoint


def extract_state_dict(
    checkpoint: Mapping[str, Any], source: str
) -> OrderedDict[str, torch.Tensor]:
    """Finds the state dict in a checkpoint.

    Args:
        checkpoint: What the file holds: a state dict, or one under ``state_dict`` or ``model``.
        source: Name of the file, for errors.

    Returns:
        Its tensors, without the prefix ``module.`` of distributed training.

    Raises:
        CheckpointError: If there is none, or it holds a tensor that is not plain numbers.
    """
    candidates = (checkpoint.get(name) for name in ('state_dict', 'model'))
    candidate = next((each for each in candidates if isinstance(each, Mapping)), checkpoint)
    state_dict = OrderedDict(
        (key.removeprefix('module.'), value)
        for key, value in candidate.items()
        if isinstance(key, str) and isinstance(value, torch.Tensor)
    )
    if not state_dict:
        raise CheckpointError(
            f'{source} holds no state dict: neither at its top nor under "state_dict" or "model"'
        )
    for key, tensor in state_dict.items():
        if not _is_plain(tensor):
            raise CheckpointError(
                f'{source} holds no plain numbers under {key}: they are quantized, sparse, nested, '
                'without storage or fewer than its shape says'
            )
    return state_dict


def _is_plain(tensor: torch.Tensor) -> bool:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested or tensor.is_meta:
        return False
    return tensor.nbytes <= tensor.untyped_storage().nbytes()


def write_checkpoint(
    path: Path, weights: LazyWeights, *, meta: Mapping[str, Any] | None = None
) -> None:
    """Writes a checkpoint, whole or not at all, with one tensor in memory at a time.

    Args:
        path: The file; with the suffix ``.safetensors`` it is of that format, else PyTorch's.
            While it is written, a folder beside it holds as much again.
        weights: The weights.
        meta: If given, PyTorch's files hold the weights under ``state_dict`` and this under
            ``meta``, and safetensors files hold it as JSON; without it they hold weights only.

    Raises:
        OSError: If the file cannot be written.
    """
    with TemporaryDirectory(prefix=f'.{path.name}.', dir=path.parent) as folder:
        parts = Path(folder, 'parts')
        tensors = OrderedDict((key, _store(weight, parts)) for key, weight in weights.items())
        unfinished = Path(folder, path.name)
        unfinished.touch()
        mode = unfinished.stat().st_mode
        # Both libraries raise errors of their own on a full disk.
        try:
            if path.suffix == '.safetensors':
                _write_safetensors(unfinished, tensors, meta)
            else:
                content = tensors if meta is None else {'meta': dict(meta), 'state_dict': tensors}
                torch.save(content, unfinished)
        except OSError:
            raise
        except Exception as error:
            raise OSError(f'cannot write {path}: {" ".join(str(error).split())}') from error
        # safetensors would keep others from reading it.
        unfinished.chmod(mode)
        os.replace(unfinished, path)


def _store(weight: LazyTensor, path: Path) -> torch.Tensor:
    """Copies a tensor to a file that is mapped into memory, so that it uses up none."""
    size = weight.shape.numel()
    if not size:
        return weight.whole()
    with path.open('wb') as file:
        # A full disk shall raise here; writing to the mapping would kill the process.
        os.posix_fallocate(file.fileno(), 0, size * weight.dtype.itemsize)
    stored = torch.from_file(str(path), shared=True, size=size, dtype=weight.dtype)
    path.unlink()
    stored = stored.view(weight.shape)
    weight.copy_to(stored)
    return stored


def _read_safetensors(
    path: str, map_location: str | torch.device | None
) -> dict[str, torch.Tensor | dict]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework='pt', device=str(map_location or 'cpu')) as file:
            state_dict = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            meta = json.loads((file.metadata() or {}).get('meta', '{}'))
    except Exception as error:  # a header can be wrong in many ways
        raise CheckpointError(
            f'checkpoint {path} ({os.path.getsize(path)} bytes) is truncated, damaged or no '
            f'safetensors file: {" ".join(str(error).split())[:300]}'
        ) from None
    return {'state_dict': state_dict, 'meta': meta}


def _write_safetensors(
    path: Path, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any] | None
) -> None:
    from safetensors.torch import save_file

    # transformers asks for the format.
    metadata = {'format': 'pt'} if meta is None else {'format': 'pt', 'meta': json.dumps(meta)}
    save_file(tensors, path, metadata=metadata)
