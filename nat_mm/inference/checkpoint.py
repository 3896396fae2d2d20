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

from nat_mm.checkpoints import KeyReport, compare_keys, for_whole_model, read_classes
from nat_mm.config.objects import walk_dicts
from nat_mm.errors import PretrainedError, UserError, shorten
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
    if '://' not in source and not os.path.isfile(os.path.expanduser(source)):
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


def check_any_key_fits(model: nn.Module, checkpoint: dict[str, Any], *, source: str) -> KeyReport:
    """Checks that a checkpoint fits a model at all.

    Args:
        model: Model into which the checkpoint will be loaded.
        checkpoint: Result of `read_for_model`.
        source: What the checkpoint is called in the message.

    Returns:
        Which keys fit.

    Raises:
        UserError: No key fits.
    """
    report = compare_keys(unwrap_model(model).state_dict(), checkpoint['state_dict'])
    if not report.fitting:
        raise UserError(
            f'no key of {source} fits the model: it has {shorten(report.unexpected, 3)}, '
            f'the model has {shorten(report.missing, 3)}'
        )
    return report


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
    report = check_any_key_fits(model, checkpoint, source=f'checkpoint {source}')
    parameters = dict(unwrap_model(model).named_parameters())
    missing = [key for key in report.missing if key in parameters]
    if missing or report.misshaped:
        raise UserError(
            f'checkpoint {source} has another architecture than the model. '
            f'Missing: {shorten(missing, 3)}. Wrong shape: {shorten(report.misshaped, 3)}. '
            f'Not in the model: {shorten(report.unexpected, 3)}'
        )
    for complaint, keys in (
        ('does not have these buffers', report.missing),
        ('has keys that the model does not', report.unexpected),
    ):
        if keys:
            print(f'warning: checkpoint {source} {complaint}: {shorten(keys, 3)}', file=sys.stderr)


def check_order_of_classes(
    classes: Sequence[str] | None, checkpoint: dict[str, Any], *, source: str
) -> None:
    """Checks that a test dataset numbers its classes like that of a checkpoint's training.

    Args:
        classes: Classes of the dataset, if known.
        checkpoint: Result of `read_for_model`.
        source: Origin of the checkpoint, for the message.

    Raises:
        UserError: The classes are the same, but in another order.
    """
    trained = list(read_classes(checkpoint, source).get('classes') or ())
    found = list(classes or ())
    if found != trained and len(found) == len(trained) and set(found) == set(trained):
        first = next(index for index, name in enumerate(trained) if name != found[index])
        raise UserError(
            'the classes of test_dataloader.dataset are in another order than those that '
            f'{source} was trained on: class {first} is {found[first]!r}, there it is '
            f'{trained[first]!r}. Put metainfo.classes, and the categories of annotation files '
            'in the format of COCO, in the order of the checkpoint'
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
        places = [
            path
            for path, each in walk_dicts(config.model, 'model')
            if path.endswith('.init_cfg') and '://' in str(each.get('checkpoint'))
        ] or ['model.backbone.init_cfg']
        copies = ' '.join(f'{place}.checkpoint=PATH' for place in places)
        nothing = ' '.join(f'{place}=None' for place in places)
        raise UserError(
            f'cannot download the pretrained weights of {config.filename} ({error.reason}). Give '
            f'a local copy with --cfg-options {copies}, or train from scratch with --cfg-options '
            f'{nothing}'
        ) from error
    except PretrainedError as error:
        raise UserError(f'{config.filename}: {error}') from error
