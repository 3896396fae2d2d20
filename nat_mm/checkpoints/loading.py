"""Loads weights of any layout into a backbone and reports what did not fit."""

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from torch import nn

from nat_mm.checkpoints.layouts import is_backbone, last_stage, output_norms, take_backbone
from nat_mm.checkpoints.reading import extract_state_dict, mmengine_reads_by, read_checkpoint
from nat_mm.errors import CheckpointError, PretrainedError
from nat_mm.layers.rpb import is_resizable_rpb


@dataclasses.dataclass(frozen=True)
class KeyReport:
    """Comparison of the keys of a checkpoint and a model."""

    fitting: list[str]
    """Keys in both, with the same shape or an RPB table that can be resized."""
    missing: list[str]
    """Keys in the model only."""
    unexpected: list[str]
    """Keys in the checkpoint only."""
    misshaped: list[str]
    """Keys in both with different shapes, each as a readable line."""


@dataclasses.dataclass
class _Loading:
    """The file that is being loaded into a backbone, and the report on it."""

    source: str = ''
    report: KeyReport = KeyReport([], [], [], [])


_LOADING: ContextVar[_Loading | None] = ContextVar('loading', default=None)


def load_pretrained(
    backbone: nn.Module,
    checkpoint: str,
    *,
    prefix: str | None = None,
    map_location: str | torch.device = 'cpu',
) -> KeyReport:
    """Loads the weights of a pretrained checkpoint that fit a backbone.

    No code in the file runs. Keys that are missing, unexpected or misshapen are listed in one
    warning in the log. Output norms (``norm0``, ...) may be missing, since classifiers have none; a
    classifier's last norm is used only if the backbone, like a classifier's, outputs only the last
    stage. RPB tables for another kernel size are resized. ``init_cfg`` with mmengine's
    ``Pretrained`` does the same.

    Args:
        backbone: A NAT, DiNAT or DiNAT_s.
        checkpoint: Local path or URL of the authors' or Hugging Face's weights of a backbone or
            classifier, or of an OpenMMLab model that has the backbone as ``backbone.``. Local files
            may be safetensors files; in other formats, the weights may be under ``state_dict`` or
            ``model``.
        prefix: Prefix of the backbone's keys in the checkpoint, such as ``backbone.``.
        map_location: Device to load the checkpoint to.

    Returns:
        A report of what fits and what does not.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is damaged, contains no weights or unsafe objects, or none of
            its keys fit.
    """
    with _reported(prefix) as loading:
        PretrainedInit(checkpoint, prefix, map_location)(backbone)
    return loading.report


@contextmanager
def pretrained_weights(init_cfg: dict | list[dict] | None) -> Iterator[None]:
    """Makes ``Pretrained`` in a backbone's ``init_cfg`` load as :func:`load_pretrained` does."""
    entries = [init_cfg] if isinstance(init_cfg, dict) else init_cfg or []
    prefix = next((entry.get('prefix') for entry in entries if entry.get('prefix')), None)
    try:
        with _reported(prefix):
            yield
    except (CheckpointError, FileNotFoundError) as error:
        raise PretrainedError(str(error)) from error


def adapt_state_dict(
    backbone: nn.Module, state_dict: dict[str, torch.Tensor], prefix: str, *_: Any
) -> None:
    """Load-state-dict pre-hook that renames weights of any known layout as in a backbone."""
    loading = _LOADING.get()
    given = {key.removeprefix(prefix): key for key in state_dict if key.startswith(prefix)}
    if loading is None and is_backbone(given):
        return
    weights = {name: state_dict.pop(key) for name, key in given.items()}
    expected = backbone.state_dict()
    outputs, last = output_norms(expected), last_stage(expected)
    weights = take_backbone(weights, keep_norm=outputs == {last})
    if loading is not None:
        if output_norms(weights) == {last} != outputs:
            # It is a classifier's, whose prefix mmengine has already removed.
            weights = {key: weights[key] for key in weights if not key.startswith(f'norm{last}.')}
        weights = _keep_fitting(backbone, weights, loading)
    state_dict.update({prefix + name: tensor for name, tensor in weights.items()})


def compare_keys(
    expected: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]
) -> KeyReport:
    """Compares the state dict of a model with that of a checkpoint in the same layout."""
    fitting, misshaped = [], []
    for key in expected.keys() & given.keys():
        wanted, found = expected[key].shape, given[key].shape
        if wanted == found or (key.endswith('rpb') and is_resizable_rpb(found, wanted)):
            fitting.append(key)
        else:
            misshaped.append(f'{key} (checkpoint {list(found)}, model {list(wanted)})')
    return KeyReport(
        fitting=sorted(fitting),
        missing=sorted(expected.keys() - given.keys()),
        unexpected=sorted(given.keys() - expected.keys()),
        misshaped=sorted(misshaped),
    )


@contextmanager
def _reported(prefix: str | None) -> Iterator[_Loading]:
    """Makes mmengine's ``Pretrained`` use our own reader, and reports what fits."""
    loading = _Loading()

    def read(filename: str, map_location: Any) -> dict[str, Any]:
        loading.source = filename
        checkpoint = read_checkpoint(filename, map_location=map_location)
        return {'state_dict': extract_state_dict(checkpoint, filename)}

    token = _LOADING.set(loading)
    try:
        with mmengine_reads_by(read):
            yield loading
    except AssertionError as error:
        # mmengine raises it for a prefix that no key has.
        raise PretrainedError(
            f'no key in {loading.source} begins with prefix {prefix!r}'
        ) from error
    finally:
        _LOADING.reset(token)


def _keep_fitting(
    backbone: nn.Module, given: Mapping[str, torch.Tensor], loading: _Loading
) -> dict[str, torch.Tensor]:
    """Reports what does not fit, and replaces it with the backbone's own weights."""
    name, expected = type(backbone).__name__, backbone.state_dict()
    report = loading.report = compare_keys(expected, given)
    if not report.fitting:
        raise PretrainedError(
            f'no key in {loading.source} fits {name}. The checkpoint has {_examples(given)}; '
            f'the model has {_examples(expected)}'
        )
    complaints = {
        # Classifiers have no output norms.
        'missing in the checkpoint': [key for key in report.missing if not output_norms([key])],
        'unexpected': report.unexpected,
        'of another shape': report.misshaped,
    }
    lines = [f'{kind}: {_join_keys(keys)}' for kind, keys in complaints.items() if keys]
    loaded = f'{name}: {len(report.fitting)} tensors loaded from {loading.source}'
    if lines:
        message = '\n  '.join([f'{loaded}, but it does not fit everywhere', *lines])
        print_log(message, logger='current', level=logging.WARNING)
    else:
        print_log(loaded, logger='current')
    return {**expected, **{key: given[key] for key in report.fitting}}


def _join_keys(keys: Iterable[str]) -> str:
    """Joins keys with commas, merging those that differ only in the index of their block."""
    numbers_of = defaultdict(list)
    for key in keys:
        level, blocks, rest = key.partition('.blocks.')
        number, _, name = rest.partition('.')
        numbers_of[level + blocks, name].append(number)
    return ', '.join(
        f'{start}{{{",".join(sorted(numbers, key=lambda n: (len(n), n)))}}}.{name}'
        if len(numbers) > 1
        else f'{start}{numbers[0]}.{name}'.rstrip('.')
        for (start, name), numbers in numbers_of.items()
    )


def _examples(state_dict: Mapping[str, torch.Tensor]) -> str:
    """Returns the first few keys with their shapes."""
    keys = list(state_dict)[:3]
    shown = ', '.join(f'{key} {list(state_dict[key].shape)}' for key in keys)
    return shown + (', ...' if len(state_dict) > len(keys) else '') if keys else 'no weights'
