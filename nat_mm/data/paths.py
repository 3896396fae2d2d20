"""Checks the files and folders that a config names."""

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.config import Config, ConfigDict
from mmengine.registry import TRANSFORMS

from nat_mm.config.datasets import find_inner
from nat_mm.config.objects import find_class, walk_dicts
from nat_mm.data.findings import Finding
from nat_mm.data.sources import is_known
from nat_mm.errors import brief

LOCAL_BACKENDS = ('local', 'disk')
_LABEL_FOLDERS = ('data_prefix.seg_map_path', 'data_prefix.seg')


def find_path_problems(config: Config, split: str) -> Iterator[Finding]:
    """Checks the folders and annotation files of the datasets and evaluators of one split.

    Args:
        config: Config of the run.
        split: ``train``, ``val`` or ``test``.

    Yields:
        What is missing or empty.
    """
    for _, dataset in find_inner(config, split):
        problem = describe_path_problem(dataset, config, split)
        if problem:
            yield Finding(problem)
    for place, evaluator in every_evaluator(config, split):
        if isinstance(evaluator, str | int | float):
            yield Finding(f'{place} must be a dict with a type, got {brief(evaluator)}')
    for place, evaluator in find_evaluators(config, split):
        if evaluator.get('type') is None:
            yield Finding(f'{place} has no type, such as CocoMetric')
        for name in ('ann_file', 'seg_prefix'):
            path = evaluator.get(name)
            if path and is_local(evaluator, path) and not os.path.exists(path):
                yield Finding(f'{place}.{name} does not exist: {os.path.abspath(path)}')


def describe_path_problem(dataset: ConfigDict, config: Config, split: str) -> str | None:
    """Describes which file or folder of a dataset is missing or empty.

    Args:
        dataset: Config of the dataset.
        config: Config of the run.
        split: ``train``, ``val`` or ``test``, for the message.

    Returns:
        What is wrong, or None.
    """
    paths = local_paths(dataset)
    read = find_files_read(dataset, config)
    if 'ann_file' not in paths:
        read.add('images')  # to list them
    paths = {
        name: path
        for name, path in paths.items()
        if name == 'ann_file' or ('labels' if name in _LABEL_FOLDERS else 'images') in read
    }
    for name, path in paths.items():
        if not os.path.exists(path):
            return (
                f'{name} of the dataset does not exist: {os.path.abspath(path)} '
                f'(data_root of the {split} dataset is {dataset.get("data_root")!r})'
            )
    return describe_empty(split) if _holds_nothing(paths) else None


def find_evaluators(config: Config, split: str) -> Iterator[tuple[str, ConfigDict]]:
    """Yields key and config of each evaluator of one split of the data that has a config."""
    for place, evaluator in every_evaluator(config, split):
        if isinstance(evaluator, dict):
            yield place, evaluator


def every_evaluator(config: Config, split: str) -> Iterator[tuple[str, Any]]:
    """Yields key and value of each evaluator, whatever it is."""
    evaluators = config.get(f'{split}_evaluator')
    if isinstance(evaluators, list | tuple):
        for index, evaluator in enumerate(evaluators):
            yield f'{split}_evaluator.{index}', evaluator
    elif evaluators is not None:
        yield f'{split}_evaluator', evaluators


def is_local(settings: Any, *paths: Any) -> bool:
    """Whether a dataset, transform or evaluator reads ordinary files.

    Args:
        settings: Its config, or an object with ``backend_args`` or ``file_client_args``.
        paths: Files and folders that it reads.
    """
    known = settings if isinstance(settings, dict) else vars(settings)
    arguments = known.get('backend_args') or known.get('file_client_args') or {}
    is_remote = any('://' in str(path) for path in paths)
    return arguments.get('backend', 'local') in LOCAL_BACKENDS and not is_remote


def find_files_read(dataset: ConfigDict, config: Config) -> set[str]:
    """Finds what a dataset's pipeline reads from files at the paths that the dataset gives.

    Args:
        dataset: Config of the dataset.
        config: Config of the run.

    Returns:
        ``images`` and ``labels``, or one of them, or neither: users' transforms may read anything
        from anywhere. Both without a pipeline, since a wrapper's may read them.
    """
    if not dataset.get('pipeline'):
        return {'images', 'labels'}
    read = set()
    for _, settings in walk_dicts(dataset['pipeline']):
        kind = find_class(TRANSFORMS, settings, config)
        if kind is None or not is_known(kind):
            continue
        if not issubclass(kind, LoadImageFromFile | LoadAnnotations):
            continue
        arguments = {key: settings[key] for key in settings if key not in ('type', '_scope_')}
        with suppress(Exception):  # wrong arguments are reported once the dataset is built
            loader = kind(**arguments)
            if not is_local(loader):
                continue
            if isinstance(loader, LoadImageFromFile):
                read.add('images')
            elif loader.with_seg:
                read.add('labels')
    return read


def local_paths(dataset: dict) -> dict[str, str]:
    """Returns the files and folders that a dataset config names, joined to its data_root."""
    if not is_local(dataset):
        return {}
    named = {'ann_file': dataset.get('ann_file')}
    prefix = dataset.get('data_prefix') or {}
    if isinstance(prefix, str):
        named['data_prefix'] = prefix
    else:
        named |= {f'data_prefix.{key}': path for key, path in prefix.items()}
    root = dataset.get('data_root') or ''
    joined = {
        name: os.path.join(root, path) for name, path in named.items() if isinstance(path, str)
    }
    return {name: path for name, path in joined.items() if path and '://' not in path}


def describe_empty(split: str) -> str:
    """Returns the message for a split of the data without images."""
    return f'the {split} dataset has no image with annotations of its classes'


def _holds_nothing(paths: dict[str, str]) -> bool:
    """Whether a list of images, or the folder of a dataset without one, is empty."""
    ann_file = paths.get('ann_file')
    if ann_file is not None:
        return os.path.isfile(ann_file) and not os.path.getsize(ann_file)
    folders = [path for path in paths.values() if os.path.isdir(path)]
    return any(not any(files for *_, files in os.walk(folder)) for folder in folders)
