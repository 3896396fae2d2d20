"""Finds the datasets inside wrappers such as RepeatDataset and ConcatDataset."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset

PARTS = ('train', 'val', 'test')


def find_inner(dataset: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Finds the configs of the datasets that read files, inside wrappers such as RepeatDataset.

    Args:
        dataset: Config of a dataset; nothing is found in anything else.
        place: Its key in the config.

    Yields:
        Key and config of each.
    """
    if not isinstance(dataset, dict):
        return
    for name in ('dataset', 'datasets'):
        inner = dataset.get(name)
        if isinstance(inner, dict):
            yield from find_inner(inner, f'{place}.{name}')
            return
        if inner is not None:
            for index, child in enumerate(inner):
                yield from find_inner(child, f'{place}.{name}.{index}')
            return
    yield place, dataset


def find_test_dataset(config: Config) -> dict[str, Any]:
    """Returns the config of the test dataset, or of the first of several; empty if none."""
    loader = config.get('test_dataloader') or {}
    return next((found for _, found in find_inner(loader.get('dataset'), '')), {})


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
