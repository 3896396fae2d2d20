"""Reads checkpoint files without running code in them, for nat_mm itself and for mmengine."""

import json
import logging
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.error import URLError

import torch
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader

from nat_mm.checkpoints import hub
from nat_mm.checkpoints.layouts import FOREIGN, convert_weights, find_layout
from nat_mm.checkpoints.meta import read_classes
from nat_mm.checkpoints.published import asks_mirrors_first, mirror_of
from nat_mm.compat.checkpoints import read_safely
from nat_mm.errors import CheckpointError, one_line
from nat_mm.files import check_is_text

Reader = Callable[[str, Any], Any]
_READER: ContextVar[Reader | None] = ContextVar('reader', default=None)


def read_checkpoint(source: str, *, map_location: str | torch.device | None = 'cpu') -> Any:
    """Reads a checkpoint; the tensors of a local file are memory-mapped.

    Args:
        source: Local path, URL or ``hf://owner/name[@revision][/file]`` on the Hugging Face Hub.
            Local files and files on the Hub whose names end with ``.safetensors`` are read as such,
            all others with PyTorch's ``weights_only=True``, so that no code in them runs.
        map_location: Device of the tensors.

    Returns:
        The contents of the file; for a safetensors file, its tensors under ``state_dict``.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is damaged, could run code, or does not exist on the Hub.
        URLError: If the file cannot be downloaded.
        UserError: If the name of the file is not valid UTF-8.
    """
    path = os.path.expanduser(source)
    if source.startswith(hub.PREFIX):
        path = hub.download(source)
    elif '://' in source:
        # mmengine's own method; nat_mm_startup wraps it.
        load = CheckpointLoader.load_checkpoint.__wrapped__
        return _read_url(source, map_location, lambda: load(source, map_location=map_location))
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{source} can not be found.')
    check_is_text(path, name='checkpoint')
    if path.endswith('.safetensors'):
        return _read_safetensors(path, map_location)
    # Only zip files can be memory-mapped.
    mmap = zipfile.is_zipfile(path)
    return read_safely(path, lambda: torch.load(path, map_location, weights_only=True, mmap=mmap))


def _read_url(url: str, map_location: str | torch.device | None, load: Callable[[], Any]) -> Any:
    """Reads what ``load`` downloads, or the mirror if preferred or if the host is unreachable."""
    mirror = mirror_of(url)
    if mirror is None:
        return read_safely(url, load)
    if asks_mirrors_first():
        try:
            return read_checkpoint(mirror, map_location=map_location)
        except (CheckpointError, URLError) as error:
            _warn(f'the mirror {mirror} cannot be used ({_reason(error)}); {url} is downloaded')
            return read_safely(url, load)
    try:
        return read_safely(url, load)
    except (URLError, ConnectionError, TimeoutError) as error:
        _warn(f'{url} cannot be downloaded ({_reason(error)}); its mirror {mirror} is used')
        try:
            return read_checkpoint(mirror, map_location=map_location)
        except (CheckpointError, URLError) as second:
            raise URLError(
                f'{_reason(error)}; nor can its mirror {mirror} be used: {_reason(second)}'
            ) from error


def _reason(error: Exception) -> str:
    return str(error.reason) if isinstance(error, URLError) else str(error)


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)


def extract_state_dict(checkpoint: Any, source: str) -> OrderedDict[str, torch.Tensor]:
    """Finds the state dict: at the top level of a checkpoint, or under ``state_dict`` or ``model``.

    Removes the prefix ``module.`` of distributed training.
    """
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f'{source} holds no state dict but a {type(checkpoint).__name__}')
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


def for_whole_model(checkpoint: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Prepares a checkpoint for mmengine to load it into a whole model.

    Args:
        checkpoint: Contents of the file.
        source: Name of the file, for errors.

    Returns:
        The weights under ``state_dict``, and everything else in the file. The authors' models and
        Hugging Face's classifiers are converted as :func:`convert_weights` does for ``model``.

    Raises:
        CheckpointError: If there are no weights, or the classes have no valid names.
    """
    weights = extract_state_dict(checkpoint, source)
    read_classes(checkpoint, source)
    if find_layout(weights) in FOREIGN:
        weights = OrderedDict(convert_weights(weights, to='model', source=source))
    others = {
        key: value
        for key, value in checkpoint.items()
        if key not in ('model', 'state_dict') and not isinstance(value, torch.Tensor)
    }
    return {**others, 'state_dict': weights}


def load_for_mmengine(
    load: Callable[..., Any], filename: str, map_location: Any, logger: Any
) -> Any:
    """Reads a checkpoint for mmengine's ``CheckpointLoader``, whose own method is ``load``.

    Models and backbones from the authors and Hugging Face are prepared by :func:`for_whole_model`;
    backbones extract their part of the result.
    """
    read = _READER.get()
    prepared = read(filename, map_location) if read else None
    if prepared is not None:
        return prepared
    is_local = '://' not in filename
    if filename.startswith(hub.PREFIX) or (is_local and filename.endswith('.safetensors')):
        checkpoint = read_checkpoint(filename, map_location=map_location)
    elif is_local:
        checkpoint = read_safely(filename, lambda: load(filename, map_location, logger))
    else:
        checkpoint = _read_url(filename, map_location, lambda: load(filename, map_location, logger))
    try:
        layout = find_layout(extract_state_dict(checkpoint, filename))
        return for_whole_model(checkpoint, filename) if layout in FOREIGN else checkpoint
    except CheckpointError:
        # Not a checkpoint of ours: no weights, or those of Swin or others with similar keys.
        return checkpoint


@contextmanager
def mmengine_reads_by(read: Reader) -> Iterator[None]:
    """Makes mmengine's ``CheckpointLoader`` first call a function, which may return None."""
    token = _READER.set(read)
    try:
        yield
    finally:
        _READER.reset(token)


@contextmanager
def read_before(source: str | None, checkpoint: dict[str, Any] | None) -> Iterator[None]:
    """Makes mmengine load a checkpoint that was already read, without reading its file again.

    Args:
        source: Path or URL that mmengine will load.
        checkpoint: Contents of the file, which are handed over once and not kept; None if the file
            has not been read.
    """
    checkpoints = {source: checkpoint}
    del checkpoint
    with mmengine_reads_by(lambda filename, _: checkpoints.pop(filename, None)):
        yield


def _is_plain(tensor: torch.Tensor) -> bool:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested or tensor.is_meta:
        return False
    return tensor.nbytes <= tensor.untyped_storage().nbytes()


def _read_safetensors(
    path: str, map_location: str | torch.device | None
) -> dict[str, dict[str, Any]]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework='pt', device=str(map_location or 'cpu')) as file:
            state_dict = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            meta = _parse_meta((file.metadata() or {}).get('meta', ''))
    except Exception as error:  # a header can be invalid in many ways
        raise CheckpointError(
            f'checkpoint {path} ({os.path.getsize(path)} bytes) is truncated, damaged or no '
            f'safetensors file: {one_line(error)}'
        ) from None
    return {'state_dict': state_dict, 'meta': meta}


def _parse_meta(text: str) -> dict[str, Any]:
    """Parses what nat_mm wrote into the header; other tools may have written anything there."""
    try:
        meta = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return meta if isinstance(meta, dict) else {}
