"""Says in one line what is wrong with data, while they are built and after."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config
from mmengine.dataset import BaseDataset

from nat_mm.data.annotations import (
    describe_empty,
    find_annotation_problem,
    find_missing_file,
    find_missing_path,
    finds_no_images,
)
from nat_mm.data.classes import find_class_count_problem
from nat_mm.errors import UserError
from nat_mm.inference.config import config_mistakes


@contextmanager
def data_mistakes(config: Config, part: str) -> Iterator[None]:
    """Checks the paths of data, and turns exceptions that wrong data cause while they are built.

    Args:
        config: Config from which the data are built inside the ``with`` block.
        part: ``train``, ``val`` or ``test``.

    Raises:
        UserError: Data are missing, annotations are not COCO, or the config is wrong.
    """
    missing = find_missing_path(config[f'{part}_dataloader'])
    if missing:
        raise UserError(f'{config.filename}: {missing}')
    with config_mistakes(config):
        try:
            yield
        except Exception as error:
            problem = find_annotation_problem(config, part)
            # mmengine cannot build a dataset without images.
            if problem is None and finds_no_images(config, part):
                problem = describe_empty(part)
            if problem:
                raise UserError(problem) from error
            raise


def check_dataset(config: Config, dataset: BaseDataset, part: str) -> None:
    """Checks a dataset that was built.

    Args:
        config: Config of the run.
        dataset: The dataset.
        part: ``train``, ``val`` or ``test``.

    Raises:
        UserError: It is empty, a file is missing, or its classes do not fit the model.
    """
    problem = find_missing_file(dataset, part) if len(dataset) else describe_empty(part)
    if problem:
        raise UserError(find_annotation_problem(config, part) or problem)
    problem = find_class_count_problem(config, dataset, part)
    if problem:
        raise UserError(f'{config.filename}: {problem}')
