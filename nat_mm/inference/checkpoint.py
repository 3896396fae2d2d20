"""Reads and checks a checkpoint before a command relies on it."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.error import URLError

from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from torch import nn

from nat_mm.checkpoints import compare_keys, for_whole_model, read_classes
from nat_mm.errors import PretrainedError, UserError
from nat_mm.wrappers import unwrap_model


def read_for_model(source: str) -> dict[str, Any]:
    """Reads a checkpoint to the CPU, converted to the layout of a whole model.

    Args:
        source: Local path or URL.

    Returns:
        The content of the file, with the weights under ``state_dict``.

    Raises:
        UserError: The file is missing, truncated, not a checkpoint, or contains code.
    """
    if '://' not in source and not os.path.isfile(source):
        raise UserError(f'checkpoint not found: {source}')
    try:
        checkpoint = CheckpointLoader.load_checkpoint(source, map_location='cpu')
        return for_whole_model(checkpoint, source)
    except URLError as error:
        raise UserError(
            f'cannot download checkpoint {source}: {error.reason}. Give the path of a copy instead'
        ) from error
    # Only the unpickler runs here, and a damaged file can make it raise anything.
    except Exception as error:
        reason = ' '.join(str(error).split())
        prefix = '' if source in reason else f'cannot read checkpoint {source}: '
        raise UserError(prefix + reason) from error


def check_checkpoint_fits(model: nn.Module, checkpoint: dict[str, Any], *, source: str) -> None:
    """Checks that a checkpoint has every parameter of a model; prints other differences to stderr.

    Args:
        model: Model into which the checkpoint will be loaded.
        checkpoint: Result of `read_for_model`.
        source: Origin of the checkpoint, for the messages.

    Raises:
        UserError: A parameter is missing or has a different shape, so that results would come from
            random weights.
    """
    model = unwrap_model(model)
    report = compare_keys(model.state_dict(), checkpoint['state_dict'])
    parameters = dict(model.named_parameters())
    missing = [key for key in report.missing if key in parameters]
    if not report.fitting:
        raise UserError(
            f'no key of checkpoint {source} fits the model: it has {_brief(report.unexpected)}, '
            f'the model has {_brief(report.missing)}'
        )
    if missing or report.misshaped:
        raise UserError(
            f'checkpoint {source} has another architecture than the model. '
            f'Missing: {_brief(missing)}. Wrong shape: {_brief(report.misshaped)}. '
            f'Not in the model: {_brief(report.unexpected)}'
        )
    for complaint, keys in (
        ('does not have these buffers', report.missing),
        ('has keys that the model does not', report.unexpected),
    ):
        if keys:
            print(f'warning: checkpoint {source} {complaint}: {_brief(keys)}', file=sys.stderr)


def check_order_of_classes(
    classes: Sequence[str] | None, checkpoint: dict[str, Any], *, source: str, place: str
) -> None:
    """Checks that a dataset numbers its classes like the one that a checkpoint was trained on.

    Args:
        classes: Classes of the dataset, if known.
        checkpoint: Result of `read_for_model`.
        source: Origin of the checkpoint, for the message.
        place: The dataset, for the message.

    Raises:
        UserError: The classes are the same, but in another order.
    """
    trained = list(read_classes(checkpoint, source).get('classes') or ())
    found = list(classes or ())
    if found != trained and len(found) == len(trained) and set(found) == set(trained):
        first = next(index for index, name in enumerate(trained) if name != found[index])
        raise UserError(
            f'the classes of {place} are in another order than those that {source} was trained '
            f'on: class {first} is {found[first]!r}, there it is {trained[first]!r}. Put '
            'metainfo.classes, and the categories of annotation files in the format of COCO, in '
            'the order of the checkpoint'
        )


def check_any_key_fits(model: nn.Module, checkpoint: dict[str, Any], *, source: str) -> None:
    """Checks that a checkpoint from which training starts fits a model at all.

    Args:
        model: Model into which the checkpoint will be loaded.
        checkpoint: Result of `read_for_model`.
        source: Origin of the checkpoint, for the message.

    Raises:
        UserError: No key fits.
    """
    model = unwrap_model(model)
    report = compare_keys(model.state_dict(), checkpoint['state_dict'])
    if not report.fitting:
        raise UserError(
            f'no key of load_from={source} fits the model: it has {_brief(report.unexpected)}, '
            f'the model has {_brief(report.missing)}'
        )


def check_resumable(checkpoint: dict[str, Any], *, source: str, schedulers: bool = True) -> None:
    """Checks that a checkpoint contains the state of a training run, not only weights.

    Args:
        checkpoint: Result of `read_for_model`.
        source: Origin of the checkpoint, for the message.
        schedulers: Whether the run has schedulers. mmengine would start them anew without a word.

    Raises:
        UserError: It does not.
    """
    needed = ['state_dict', 'meta', 'optimizer']
    needed += ['param_schedulers', 'message_hub'] if schedulers else ['message_hub']
    absent = [key for key in needed if key not in checkpoint]
    if absent:
        raise UserError(
            f'cannot resume from {source}: it has no {", ".join(absent)}. To start a new training '
            f'from its weights use --cfg-options load_from={source}'
        )


@contextmanager
def weight_mistakes(config: Config) -> Iterator[None]:
    """Converts exceptions that a config's pretrained weights cause at the start of a run.

    Args:
        config: Config of the run inside the ``with`` block.

    Raises:
        UserError: Weights cannot be downloaded or do not fit the model.
    """
    try:
        yield
    except URLError as error:
        raise UserError(
            f'cannot download the pretrained weights of {config.filename} ({error.reason}). Give '
            'a local copy with --cfg-options model.backbone.init_cfg.checkpoint=PATH, or train '
            'from scratch with --cfg-options model.backbone.init_cfg=None'
        ) from error
    except PretrainedError as error:
        raise UserError(f'{config.filename}: {error}') from error


def _brief(keys: Sequence[str]) -> str:
    if not keys:
        return 'nothing'
    return ', '.join(keys[:3]) + (f' and {len(keys) - 3} more' if len(keys) > 3 else '')
