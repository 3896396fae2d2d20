"""Reports in one line what is wrong with a dataset, while it is built and afterwards."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config
from mmengine.dataset import BaseDataset

from nat_mm.config.datasets import find_inner
from nat_mm.config.reading import config_mistakes
from nat_mm.data.check import check_config, summarize_errors
from nat_mm.data.paths import describe_empty, find_files_read, find_path_problems
from nat_mm.errors import UserError


@contextmanager
def data_mistakes(config: Config, split: str) -> Iterator[None]:
    """Checks the paths of the data, and converts the exceptions that bad data cause.

    Args:
        config: Config from which the dataset is built inside the ``with`` block.
        split: ``train``, ``val`` or ``test``.

    Raises:
        UserError: Data are missing, annotations are wrong, or the config is wrong.
    """
    for problem in find_path_problems(config, split):
        raise UserError(problem.text)
    with config_mistakes(config):
        try:
            yield
        except Exception as error:
            report = check_config(config, splits=[split], files=False)
            if report.errors:
                raise UserError(summarize_errors(report, config)) from error
            raise


def check_dataset(config: Config, dataset: BaseDataset, split: str) -> None:
    """Checks a dataset that has been built.

    Args:
        config: Config of the run.
        dataset: The dataset.
        split: ``train``, ``val`` or ``test``.

    Raises:
        UserError: It is empty, or the file of its first image is missing.
    """
    if not len(dataset):
        report = check_config(config, splits=[split], files=False)
        raise UserError(
            summarize_errors(report, config) if report.errors else describe_empty(split)
        )
    problem = _find_missing_file(config, dataset, split)
    if problem:
        raise UserError(problem)


def _find_missing_file(config: Config, dataset: BaseDataset, split: str) -> str | None:
    if not hasattr(dataset, 'get_data_info'):
        return None
    read = next((find_files_read(each, config) for _, each in find_inner(config, split)), set())
    first = dataset.get_data_info(0)
    for kind, name in [('images', 'img_path'), ('labels', 'seg_map_path')]:
        path = first.get(name)
        if kind in read and path and '://' not in path and not os.path.isfile(path):
            return f'a file of the {split} dataset does not exist: {os.path.abspath(path)}'
    return None
