"""Checks data loaders: whether their samples and batches are of any use to a model."""

from collections.abc import Iterator, Sequence

from mmengine.config import Config
from mmengine.dataset import BaseDataset

from nat_mm.data.findings import Finding
from nat_mm.data.sources import DataSource


def find_loader_problems(config: Config, sources: Sequence[DataSource]) -> Iterator[Finding]:
    """Finds pipelines without any transform, and datasets that do not fill a batch.

    Args:
        config: Config of the run.
        sources: The datasets of one part of the data.

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
        loader = config[f'{source.part}_dataloader']
        sampler = str((loader.get('sampler') or {}).get('type'))
        if (
            loader.get('drop_last')
            and source.place == f'{source.part}_dataloader.dataset'
            and not sampler.endswith('InfiniteSampler')
        ):
            source.dataset.full_init()
            count = len(source.dataset)
            if 0 < count < loader.get('batch_size', 1):
                yield Finding(describe_no_batch(config, source.part, count))


def describe_no_batch(config: Config, part: str, count: int) -> str:
    """Returns the message for a dataset that does not fill a batch.

    Args:
        config: Config of the run.
        part: ``train``, ``val`` or ``test``.
        count: Number of images in the dataset.
    """
    place = f'{part}_dataloader'
    size = config[place].get('batch_size', 1)
    return (
        f'{place}.drop_last is True, but the dataset has only {count} images for a batch_size of '
        f'{size}: lower {place}.batch_size or write drop_last=False'
    )
