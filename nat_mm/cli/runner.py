"""Builds a runner and its data, so that mistakes in the config show before the work starts."""

from mmengine.config import Config
from mmengine.runner import Runner

from nat_mm.cli.classes import find_class_count_problem
from nat_mm.cli.data import (
    describe_empty,
    find_annotation_problem,
    find_missing_file,
    find_missing_path,
)
from nat_mm.cli.errors import CommandError, config_mistakes


def build_runner(config: Config) -> Runner:
    """Builds the model and the runner of a config.

    Args:
        config: Config of the run.

    Returns:
        The runner; its data loaders are not built yet.

    Raises:
        CommandError: The config is wrong, or asks for another kind of runner.
    """
    if 'runner_type' in config:
        raise CommandError(
            f'{config.filename} has runner_type={config.runner_type!r}, which this command cannot '
            'run; mim train and mim test of mmdet or mmsegmentation can'
        )
    with config_mistakes(config):
        return Runner.from_cfg(config)


def build_loop(runner: Runner, part: str) -> None:
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


def build_optimizer(runner: Runner) -> None:
    """Builds the optimizer of a runner.

    Args:
        runner: The runner; it keeps the optimizer wrapper.

    Raises:
        CommandError: The config is wrong.
    """
    with config_mistakes(runner.cfg):
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
