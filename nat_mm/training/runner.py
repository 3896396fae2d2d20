"""Builds a runner and its data, so that mistakes in the config appear before the work starts."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.optim import build_optim_wrapper
from mmengine.runner import FlexibleRunner, Runner
from torch.utils.data import DataLoader

from nat_mm.config.reading import config_mistakes
from nat_mm.data.broken_samples import name_broken_samples
from nat_mm.data.loaders import describe_no_batch
from nat_mm.data.mistakes import check_dataset, data_mistakes
from nat_mm.data.palettes import complete_palettes
from nat_mm.errors import UserError
from nat_mm.training.console import ShortFlexibleRunner, ShortRunner

RUNNERS = {'Runner': ShortRunner, 'FlexibleRunner': ShortFlexibleRunner}
"""Runners by ``runner_type``; the second supports a ``strategy``, such as FSDP."""


def build_runner(config: Config, *, replace_config: bool) -> Runner | FlexibleRunner:
    """Builds the model and the runner of a config.

    Args:
        config: Config of the run.
        replace_config: Whether its text replaces that of an earlier run in the work directory.

    Returns:
        The runner; its data loaders are not built yet.

    Raises:
        UserError: If the config is wrong, or requests another kind of runner.
    """
    runner_type = config.get('runner_type', 'Runner')
    if runner_type not in RUNNERS:
        raise UserError(
            f'{config.filename}: runner_type must be one of {", ".join(RUNNERS)}, '
            f'got {runner_type!r}'
        )
    complete_palettes(config)
    with config_mistakes(config):
        runner = RUNNERS[runner_type].from_cfg(config)
        if runner_type == 'FlexibleRunner':
            # FlexibleRunner would build the model only when its work starts.
            runner.model = runner.strategy.build_model(runner.model)
    runner.save_config(replace=replace_config)
    # The rest is built only when training starts, as it depends on the data and the optimizer.
    if runner_type == 'FlexibleRunner':
        runner.strategy.prepare = config_mistakes(config)(runner.strategy.prepare)
    else:
        for name in ('build_param_scheduler', '_init_model_weights'):
            setattr(runner, name, config_mistakes(config)(getattr(runner, name)))
    return runner


def build_loop(runner: Runner | FlexibleRunner, split: str) -> None:
    """Builds the dataset, data loader and loop of one split of the data.

    Args:
        runner: The runner, which keeps the loop.
        split: ``train``, ``val`` or ``test``.

    Raises:
        UserError: If data is missing, annotations are not in COCO format, the images do not fill a
            batch, or the config is wrong.
    """
    config = runner.cfg
    if config.get(f'{split}_dataloader') is None:
        return
    with data_mistakes(config, split), _naming_broken_samples(runner, split):
        loop = getattr(runner, f'{split}_loop')
    check_dataset(config, loop.dataloader.dataset, split)
    # InfiniteSampler repeats the images until they fill a batch. With a batch sampler, such as
    # mmdet's AspectRatioBatchSampler, the loader's own sampler is another one.
    sampler = getattr(loop.dataloader.batch_sampler, 'sampler', None)
    if not len(loop.dataloader) and not isinstance(sampler, InfiniteSampler):
        raise UserError(describe_no_batch(config, split, len(loop.dataloader.dataset)))


@contextmanager
def _naming_broken_samples(runner: Runner | FlexibleRunner, split: str) -> Iterator[None]:
    """Makes data loaders name the files that break; done before loops start workers."""
    build = runner.build_dataloader

    def build_and_name(*args: Any, **kwargs: Any) -> DataLoader:
        loader = build(*args, **kwargs)
        name_broken_samples(loader, runner.cfg, split)
        return loader

    runner.build_dataloader = build_and_name
    try:
        yield
    finally:
        del runner.build_dataloader


def build_optimizer(runner: Runner | FlexibleRunner) -> None:
    """Builds the optimizer of a runner.

    Args:
        runner: The runner. It keeps the optimizer wrapper, except for a FlexibleRunner, which
            creates its own for the distributed model.

    Raises:
        UserError: If the config is wrong.
    """
    with config_mistakes(runner.cfg):
        if isinstance(runner, FlexibleRunner):
            build_optim_wrapper(runner.model, copy.deepcopy(runner.optim_wrapper))
        else:
            runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
