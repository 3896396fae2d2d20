"""Finds the datasets inside wrappers such as RepeatDataset and ConcatDataset."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset

SPLITS = ('train', 'val', 'test')


def find_inner(config: Config, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Finds the configs of the datasets that read files, inside wrappers such as RepeatDataset.

    Args:
        config: The config.
        split: ``train``, ``val`` or ``test``.

    Yields:
        Key and config of each.
    """
    for key, found in walk_datasets(config, split):
        if not _find_children(found, key):
            yield key, found


def walk_datasets(config: Config, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Like `find_inner`, but also yields each wrapper, before what is inside it."""
    loader = config.get(f'{split}_dataloader') or {}
    yield from _walk(loader.get('dataset'), f'{split}_dataloader.dataset')


def _walk(dataset: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(dataset, dict):
        yield place, dataset
        for key, child in _find_children(dataset, place):
            yield from _walk(child, key)


def _find_children(dataset: dict[str, Any], place: str) -> list[tuple[str, Any]]:
    """Lists what a dataset wraps, with its keys in the config."""
    for name in ('dataset', 'datasets'):
        inner = dataset.get(name)
        if isinstance(inner, dict):
            return [(f'{place}.{name}', inner)]
        if isinstance(inner, list | tuple):
            return [(f'{place}.{name}.{index}', child) for index, child in enumerate(inner)]
    return []


def find_test_dataset(config: Config) -> dict[str, Any]:
    """Returns the config of the test dataset, or of the first of several; empty if none."""
    return next((found for _, found in find_inner(config, 'test')), {})


def unwrap_dataset(dataset: Any) -> Iterator[Any]:
    """Yields a dataset, or those inside it if it is a wrapper."""
    if isinstance(dataset, BaseDataset):
        yield dataset
        return
    for name in ('dataset', '_dataset'):
        if hasattr(dataset, name):
            yield from unwrap_dataset(getattr(dataset, name))
            return
    if hasattr(dataset, 'datasets'):
        for each in dataset.datasets:
            yield from unwrap_dataset(each)
    else:
        yield dataset
