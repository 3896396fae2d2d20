"""Safe loading of a pretrained backbone, with a report of what did not fit."""

import dataclasses
import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import groupby

import torch
from mmengine.logging import print_log
from torch import nn

from nat_mm.checkpoints.authors import last_stage
from nat_mm.checkpoints.files import extract_state_dict, read_checkpoint
from nat_mm.checkpoints.layouts import take_backbone
from nat_mm.checkpoints.weights import LazyTensor, as_lazy
from nat_mm.layers.rpb import is_resizable_rpb


@dataclasses.dataclass(frozen=True)
class KeyReport:
    """How the keys of a checkpoint and of a model compare.

    Attributes:
        fitting: Keys of both, of the same shape or an RPB table that can be resized.
        missing: Keys of the model only.
        unexpected: Keys of the checkpoint only.
        misshaped: Keys of both with different shapes, each as a line to read.
    """

    fitting: list[str]
    missing: list[str]
    unexpected: list[str]
    misshaped: list[str]


def load_pretrained(
    module: nn.Module,
    checkpoint: str,
    *,
    prefix: str | None = None,
    map_location: str | torch.device = 'cpu',
) -> KeyReport:
    """Loads a pretrained checkpoint into a backbone, as far as it fits.

    No code in the file runs. What is missing, unexpected or of another shape goes into one
    warning of the log. Output norms (``norm0``, ...) may be missing, as classifiers have none; a
    classifier's last norm is used only by a backbone that, like a classifier's, outputs nothing
    but the last stage. RPB tables of another kernel size are resized. A file's tensors are read
    layer by layer.

    Args:
        module: The backbone.
        checkpoint: Local path or URL of the authors' or Hugging Face's weights of a backbone or
            classifier, or of an OpenMMLab model that has the backbone as ``backbone.``. Local files
            may be safetensors files; in others, the weights may be under ``state_dict`` or
            ``model``.
        prefix: What the backbone's keys begin with in the checkpoint, such as ``backbone.``.
        map_location: Device on which the checkpoint is read.

    Returns:
        What did and did not fit.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, holds more than weights or no weights, or not one of
            its keys fits.
    """
    expected = module.state_dict()
    output_norms = {key.partition('.')[0] for key in expected if re.match(r'norm\d+\.', key)}
    loaded = read_checkpoint(checkpoint, map_location=map_location)
    given = take_backbone(
        as_lazy(extract_state_dict(loaded, checkpoint)),
        prefix=prefix,
        keep_norm=output_norms == {f'norm{last_stage(expected)}'},
        source=checkpoint,
    )
    report = compare_keys(expected, given)
    if not report.fitting:
        raise ValueError(
            f'no key in {checkpoint} fits {type(module).__name__}. The checkpoint has '
            f'{_examples(given)}; the model has {_examples(expected)}'
        )
    for _, keys in groupby(report.fitting, key=lambda key: key.split('.')[:4]):
        module.load_state_dict({key: given[key].whole() for key in keys}, strict=False)
    _log_report(report, checkpoint, type(module).__name__)
    return report


def compare_keys(
    expected: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor | LazyTensor]
) -> KeyReport:
    """Sorts the keys of two state dicts into those that fit and those that do not.

    Args:
        expected: State dict of the model.
        given: Weights of the checkpoint, with the model's key names.

    Returns:
        The keys of either by how they fit.
    """
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


def _log_report(report: KeyReport, checkpoint: str, model: str) -> None:
    complaints = {
        'missing in the checkpoint': [
            key for key in report.missing if not re.match(r'norm\d+\.', key)
        ],
        'unexpected': report.unexpected,
        'of another shape': report.misshaped,
    }
    lines = [f'{name}: {_brief(keys)}' for name, keys in complaints.items() if keys]
    loaded = f'{model}: {len(report.fitting)} tensors loaded from {checkpoint}'
    if lines:
        message = '\n  '.join([f'{loaded}, but it does not fit everywhere', *lines])
        print_log(message, logger='current', level=logging.WARNING)
    else:
        print_log(loaded, logger='current')


def _brief(keys: Iterable[str]) -> str:
    """Joins keys with commas; those that differ only in the number of their block become one."""
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


def _examples(state_dict: Mapping[str, torch.Tensor | LazyTensor]) -> str:
    """The first few keys with their shapes."""
    keys = list(state_dict)[:3]
    shown = ', '.join(f'{key} {list(state_dict[key].shape)}' for key in keys)
    return shown + (', ...' if len(state_dict) > len(keys) else '') if keys else 'no weights'
