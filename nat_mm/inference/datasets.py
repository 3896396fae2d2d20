"""Finds the datasets in a config."""

from collections.abc import Iterator
from typing import Any

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
