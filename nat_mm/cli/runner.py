"""Builds a runner and its data, so that mistakes in the config show before the work starts."""

import copy

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import FlexibleRunner, Runner

from nat_mm.cli.classes import find_class_count_problem
from nat_mm.cli.data import (
    describe_empty,
    find_annotation_problem,
    find_missing_file,
    find_missing_path,
)
from nat_mm.cli.errors import CommandError, config_mistakes

RUNNERS = {'Runner': Runner, 'FlexibleRunner': FlexibleRunner}
"""Runners by ``runner_type``; the second takes a ``strategy``, such as FSDP."""


def build_runner(config: Config) -> Runner | FlexibleRunner:
    """Builds the model and the runner of a config.

    Args:
        config: Config of the run.

    Returns:
        The runner; its data loaders are not built yet.

    Raises:
        CommandError: The config is wrong, or asks for another kind of runner.
    """
    runner_type = config.get('runner_type', 'Runner')
    if runner_type not in RUNNERS:
        raise CommandError(
            f'{config.filename}: runner_type must be one of {", ".join(RUNNERS)}, '
            f'got {runner_type!r}'
        )
    with config_mistakes(config):
        runner = RUNNERS[runner_type].from_cfg(config)
        if runner_type == 'FlexibleRunner':
            # It would build the model only when its work starts.
            runner.model = runner.strategy.build_model(runner.model)
    return runner


def build_loop(runner: Runner | FlexibleRunner, part: str) -> None:
    """Builds the data set, data loader and loop of one part of the data.

    Args:
        runner: The runner; it keeps the loop.
        part: ``train``, ``val`` or ``test``.

    Raises:
        CommandError: Data are missing, annotations are not COCO, or the config is wrong.
    """
    config = runner.cfg
    if config.get(f'{part}_dataloader') is None:
        return
    missing = find_missing_path(config[f'{part}_dataloader'])
    if missing:
        raise CommandError(f'{config.filename}: {missing}')
    with config_mistakes(config):
        try:
            loop = getattr(runner, f'{part}_loop')
        except Exception as error:
            problem = find_annotation_problem(config, part)
            # mmengine's BaseDataset cannot pack an empty list.
            if problem is None and 'need at least one array' in str(error):
                problem = describe_empty(part)
            if problem:
                raise CommandError(problem) from error
            raise
    dataset = loop.dataloader.dataset
    problem = find_missing_file(dataset, part) if len(dataset) else describe_empty(part)
    if problem:
        raise CommandError(find_annotation_problem(config, part) or problem)
    problem = find_class_count_problem(config, dataset, part)
    if problem:
        raise CommandError(f'{config.filename}: {problem}')


def build_optimizer(runner: Runner | FlexibleRunner) -> None:
    """Builds the optimizer of a runner.

    Args:
        runner: The runner; it keeps the optimizer wrapper, but for a FlexibleRunner, which makes
            one of its own for the distributed model.

    Raises:
        CommandError: The config is wrong.
    """
    with config_mistakes(runner.cfg):
        if isinstance(runner, FlexibleRunner):
            build_optim_wrapper(runner.model, copy.deepcopy(runner.optim_wrapper))
        else:
            runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
