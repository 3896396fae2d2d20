"""The datasets that a config names, before they load anything."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope

from nat_mm.data.palettes import find_full_palette
from nat_mm.inference.config import config_mistakes

PARTS = ('train', 'val', 'test')


@dataclass(frozen=True)
class DataSource:
    """A dataset that reads files.

    Attributes:
        part: ``train``, ``val`` or ``test``.
        place: Where the config has it, such as ``train_dataloader.dataset.dataset``.
        config: The config of the dataset.
        dataset: The dataset, built but not loaded: it knows its class, ``metainfo``, joined
            ``ann_file`` and ``data_prefix``, and ``pipeline``.
    """

    part: str
    place: str
    config: ConfigDict
    dataset: BaseDataset


def find_sources(config: Config, part: str) -> list[DataSource]:
    """Builds the datasets of one part of the data, without loading them.

    Those inside of wrappers such as RepeatDataset and ConcatDataset are returned, not the wrappers.
    Datasets that do not inherit from mmengine's BaseDataset cannot be looked into and are left out.

    Args:
        config: Config of the run.
        part: ``train``, ``val`` or ``test``.

    Returns:
        The datasets, in the order of the config.

    Raises:
        UserError: The config of a dataset is wrong.
    """
    loader = config.get(f'{part}_dataloader') or {}
    sources = []
    for place, each in _inner(loader.get('dataset'), f'{part}_dataloader.dataset'):
        kind = each.get('type')
        with config_mistakes(config), DefaultScope.overwrite_default_scope(config.default_scope):
            found = DATASETS.get(kind) if isinstance(kind, str) else kind
            if isinstance(found, type) and not issubclass(found, BaseDataset):
                continue
            description = {**each, 'lazy_init': True}
            palette = find_full_palette(config, each)
            if palette is not None:
                # mmseg would refuse it.
                description['metainfo'] = {**(each.get('metainfo') or {}), 'palette': palette}
            dataset = DATASETS.build(description)
        sources.append(DataSource(part, place, each, dataset))
    return sources


def _inner(dataset: Any, place: str) -> Iterator[tuple[str, ConfigDict]]:
    """The configs of the datasets that read files, inside of wrappers such as RepeatDataset."""
    if not isinstance(dataset, dict):
        return
    for name in ('dataset', 'datasets'):
        inner = dataset.get(name)
        if isinstance(inner, dict):
            yield from _inner(inner, f'{place}.{name}')
            return
        if inner is not None:
            for index, child in enumerate(inner):
                yield from _inner(child, f'{place}.{name}.{index}')
            return
    yield place, dataset
