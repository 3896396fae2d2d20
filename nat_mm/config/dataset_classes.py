"""Copies the class names that a config sets once to wherever else it needs them."""

import copy
import functools
import json
import os
from typing import Any

from mmengine.config import Config

from nat_mm.config.datasets import SPLITS, find_inner
from nat_mm.errors import UserError, brief

FROM_ANNOTATIONS = 'from_annotations'
EXAMPLE = "dataset_classes = ('cat', 'dog')"


def apply_dataset_classes(config: Config) -> None:
    """Applies ``dataset_classes``, which the configs for fine-tuning have, to a config.

    The value lists the names of the classes, or is ``'from_annotations'`` for the categories of the
    COCO annotations for training, in their order. The names become ``metainfo.classes`` of every
    dataset, and their number becomes ``num_classes`` of every head but detectors'
    ``semantic_head``, which has classes of its own. A config without ``dataset_classes`` is left
    unchanged.

    Args:
        config: Config of a detector or segmentor. Changed in place; afterwards,
            ``dataset_classes`` lists the names.

    Raises:
        UserError: ``dataset_classes`` is something else, the annotations cannot be read, or a
            dataset already has different ``metainfo.classes``.
    """
    if 'dataset_classes' not in config:
        return
    classes = config.dataset_classes
    datasets = [found for split in SPLITS for found in find_inner(config, split)]
    if classes == FROM_ANNOTATIONS:
        classes = _read_categories(config, [dataset for _, dataset in datasets])
    elif not _is_names(classes):
        raise UserError(
            f'{config.filename}: dataset_classes must be the names of the classes, such as '
            f'{EXAMPLE}, got {classes!r}'
        )
    classes = tuple(classes)
    for place, dataset in datasets:
        metainfo = dataset.get('metainfo') or {}
        own = metainfo.get('classes')
        if own is not None and (isinstance(own, str) or tuple(own) != classes):
            raise UserError(
                f'{config.filename}: {place}.metainfo.classes is {own!r}, but dataset_classes is '
                f'{classes!r}: write only dataset_classes'
            )
        dataset['metainfo'] = {**metainfo, 'classes': classes}
    _set_class_counts(config.get('model'), len(classes))
    config.dataset_classes = classes


def apply_in_runners(runner_class: Any) -> None:
    """Makes runners apply ``dataset_classes``, for commands that read the config by themselves.

    Args:
        runner_class: mmengine's ``Runner`` or ``FlexibleRunner``.
    """
    build = runner_class.from_cfg.__func__

    @functools.wraps(build)
    def build_with_classes(cls: type, cfg: Any) -> Any:
        # None is the value of the configs that leave the classes to users, possibly as metainfo.
        if isinstance(cfg, Config) and cfg.get('dataset_classes') is not None:
            cfg = copy.deepcopy(cfg)
            apply_dataset_classes(cfg)
        return build(cls, cfg)

    runner_class.from_cfg = classmethod(build_with_classes)


def _is_names(value: Any) -> bool:
    return (
        isinstance(value, list | tuple) and bool(value) and all(isinstance(n, str) for n in value)
    )


def _read_categories(config: Config, datasets: list[dict[str, Any]]) -> tuple[str, ...]:
    """Reads the names of the categories from the first dataset's annotations."""
    files = [
        os.path.join(dataset.get('data_root') or '', dataset['ann_file'])
        for dataset in datasets
        if dataset.get('ann_file')
    ]
    if not files:
        raise UserError(
            f'{config.filename}: dataset_classes is {FROM_ANNOTATIONS!r}, but no dataset has an '
            f'ann_file; write the names, such as {EXAMPLE}'
        )
    path = os.path.abspath(files[0])
    try:
        with open(files[0], encoding='utf-8') as file:
            content = json.load(file)
    except FileNotFoundError as error:
        raise UserError(
            f'{config.filename} takes its classes from {path}, which does not exist: set data_root '
            f'and ann_file of train_dataloader.dataset, or write the names, such as {EXAMPLE}. The '
            'copy of the config in the work dir has them'
        ) from error
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from error
    except ValueError as error:
        raise UserError(f'annotation file {path} is not JSON: {error}') from error
    categories = content.get('categories') if isinstance(content, dict) else None
    if not isinstance(categories, list) or not categories:
        raise UserError(f'annotation file {path} is not COCO: it has no list of categories')
    for category in categories:
        if not isinstance(category, dict) or not isinstance(category.get('name'), str):
            raise UserError(
                f'annotation file {path}: each of its categories needs a name, '
                f'got {category if isinstance(category, dict) else brief(category)}'
            )
    return tuple(category['name'] for category in categories)


def _set_class_counts(part: Any, count: int) -> None:
    """Sets every ``num_classes`` in the config of a model, but for a detector's semantic branch."""
    if isinstance(part, dict):
        if 'num_classes' in part:
            part['num_classes'] = count
        part = [child for key, child in part.items() if key != 'semantic_head']
    elif not isinstance(part, list | tuple):
        return
    for child in part:
        _set_class_counts(child, count)
