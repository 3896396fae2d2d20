"""Checks data loaders: whether their samples and batches are of any use to a model."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress

from mmengine.config import Config
from mmengine.dataset import BaseDataset

from nat_mm.config.objects import type_name
from nat_mm.data.findings import Finding
from nat_mm.data.sources import DataSource


def find_loader_problems(config: Config, sources: Sequence[DataSource]) -> Iterator[Finding]:
    """Finds pipelines without any transform, and datasets that do not fill a batch.

    Args:
        config: Config of the run.
        sources: The datasets of one split of the data.

    Yields:
        What is wrong.
    """
    for source in sources:
        prepares = type(source.dataset).prepare_data is BaseDataset.prepare_data
        if prepares and not source.transforms:
            yield Finding(
                f'{source.place}.pipeline is empty, so that no image is loaded: write the '
                'transforms, from LoadImageFromFile to the one that packs the inputs'
            )
        loader = config[f'{source.split}_dataloader']
        sampler = type_name(loader.get('sampler') or {})
        if loader.get('drop_last') and not sampler.endswith('InfiniteSampler'):
            count = _count_images([source])
            if count and count < loader.get('batch_size', 1):
                yield Finding(describe_no_batch(config, source.split, count))


def last_training_batch(config: Config, sources: Sequence[DataSource]) -> int | None:
    """Computes how many images are left for the last batch of an epoch of a single process.

    Args:
        config: Config of the run.
        sources: The training datasets.

    Returns:
        Their number; None if it is not known, the batches are full, or no epoch is completed.
    """
    loader = config.get('train_dataloader') or {}
    size = loader.get('batch_size')
    sampler = type_name(loader.get('sampler') or {})
    is_plain = sampler.endswith('DefaultSampler') and not loader.get('batch_sampler')
    if not isinstance(size, int) or size < 1 or not is_plain or loader.get('drop_last'):
        return None
    count = _count_images(sources)
    if not count or config.train_cfg.get('max_iters', math.inf) <= count // size:
        return None
    return count % size or None


def _count_images(sources: Sequence[DataSource]) -> int | None:
    """Counts the images of a split's dataset.

    Returns:
        The number; None if a wrapper may change it, or the dataset cannot be loaded.
    """
    for source in sources:
        if source.place == f'{source.split}_dataloader.dataset':
            with suppress(Exception):  # the other checks report what is wrong
                source.dataset.full_init()
                return len(source.dataset)
    return None


def describe_no_batch(config: Config, split: str, count: int) -> str:
    """Returns the message for a dataset that does not fill a batch.

    Args:
        config: Config of the run.
        split: ``train``, ``val`` or ``test``.
        count: Number of images in the dataset.
    """
    place = f'{split}_dataloader'
    size = config[place].get('batch_size', 1)
    return (
        f'{place}.drop_last is True, but the dataset has only {count} images for a batch_size of '
        f'{size}: lower {place}.batch_size or write drop_last=False'
    )
