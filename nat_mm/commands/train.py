"""Trains a detector, segmentor or classifier.

It logs losses and metrics as JSON lines, which nat-mm plot-logs plots. With tensorboard = True in
the config, or --cfg-options tensorboard=True, it also logs for TensorBoard.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from mmengine.config import Config

from nat_mm.checkpoints import mirrors_first, read_before
from nat_mm.commands.arguments import (
    add_config,
    add_mirror_option,
    add_no_check,
    add_run_options,
    export_local_rank,
)
from nat_mm.commands.checking import require_sound_data
from nat_mm.config.objects import type_name
from nat_mm.config.reading import load_config
from nat_mm.data.broken_samples import loading_mistakes
from nat_mm.errors import UserError, brief
from nat_mm.files import check_is_text
from nat_mm.inference.checkpoint import (
    check_any_key_fits,
    check_checkpoint_fits,
    read_for_model,
    weight_mistakes,
)
from nat_mm.training.checkpoint_hook import BestMetricCheck
from nat_mm.training.first_pass import first_pass_mistakes
from nat_mm.training.launcher import is_main_process, prepare_launcher
from nat_mm.training.non_finite_loss import NonFiniteError, StopOnNonFiniteLoss
from nat_mm.training.resume import check_resumable, find_last_checkpoint
from nat_mm.training.runner import build_loop, build_optimizer, build_runner
from nat_mm.training.stopping import stop_on_signals
from nat_mm.training.tensorboard import apply_tensorboard
from nat_mm.training.work_dir import Start, check_free_space, disk_mistakes, occupied_work_dir

ADVICE = 'Earlier checkpoints are intact: free space, then continue with --resume'
"""What to do after an error of the disk."""

MIXED_PRECISION_WRAPPERS = ('AutocastOptimWrapper', 'AmpOptimWrapper')


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_config(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from this checkpoint or, without a value, from the newest one in the work '
        'dir',
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision: fp16 on a GPU, bf16 on a CPU'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by batch size / auto_scale_lr.base_batch_size',
    )
    add_mirror_option(parser)
    add_no_check(parser)
    add_run_options(parser)
    return parser.parse_args(arguments)


def apply_arguments(config: Config, arguments: argparse.Namespace) -> None:
    """Applies the command-line options to the config."""
    config.launcher = arguments.launcher
    if arguments.amp:
        wrapper = config.get('optim_wrapper')
        kind = type_name(wrapper, 'OptimWrapper') if isinstance(wrapper, dict) else wrapper
        if kind == 'OptimWrapper':
            wrapper.type = 'AutocastOptimWrapper'
        elif kind not in MIXED_PRECISION_WRAPPERS:
            raise UserError(
                f'--amp works with the optimizer wrapper OptimWrapper, '
                f'{arguments.config} has {kind}'
            )
    if arguments.auto_scale_lr:
        if 'base_batch_size' not in (config.get('auto_scale_lr') or {}):
            raise UserError(
                f'--auto-scale-lr needs auto_scale_lr.base_batch_size in {arguments.config}'
            )
        config.auto_scale_lr.enable = True


def find_start(config: Config, resume: str | None) -> dict[str, Any] | None:
    """Reads the checkpoint to start from, and sets its path in the config."""
    is_resumed = config.get('resume') and not config.get('load_from')
    if resume == 'auto' or (resume is None and is_resumed):
        found = find_last_checkpoint(
            config.work_dir,
            schedulers=has_schedulers(config),
            quiet=not is_main_process(config.launcher),
        )
        # If there is none yet, start anew, so that jobs that get restarted can always resume.
        if found is not None:
            config.resume = True
            config.load_from, checkpoint = found
            return checkpoint
    elif resume:
        config.resume = True
        config.load_from = resume
    source = config.get('load_from')
    if source is not None and not isinstance(source, str):
        raise UserError(f'load_from must be the path of a checkpoint or None, got {brief(source)}')
    return read_for_model(source) if source else None


def has_schedulers(config: Config) -> bool:
    """Returns whether the learning rate or the momentum changes during the run."""
    return config.get('param_scheduler') is not None


def keep_order_of_data(config: Config, checkpoint: dict[str, Any]) -> None:
    """Uses the seed with which the resumed run shuffled its data, unless the config sets one."""
    seed = checkpoint['meta'].get('seed')
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**32):
        raise UserError(
            f'cannot resume from {config.load_from}: its seed must be a whole number from 0 to '
            f'{2**32 - 1}, got a {type(seed).__name__}'
        )
    if seed is not None and config.get('randomness', {}).get('seed') is None:
        config.randomness = {**config.get('randomness', {}), 'seed': seed}


def train(config: Config, resume: str | None, on_start: Callable[[], None]) -> None:
    checkpoint = find_start(config, resume)
    load_from = config.get('load_from')
    if checkpoint is not None and config.get('resume'):
        check_resumable(checkpoint, source=load_from, schedulers=has_schedulers(config))
        keep_order_of_data(config, checkpoint)

    runner = build_runner(config, replace_config=True)
    check_free_space(runner.model, config.work_dir)
    if checkpoint is not None and config.get('resume'):
        check_checkpoint_fits(runner.model, checkpoint, source=load_from)
    elif checkpoint is not None:
        check_any_key_fits(runner.model, checkpoint, source=f'load_from={load_from}')
    with loading_mistakes(config):  # loops that count iterations start their workers already
        build_loop(runner, 'train')
        build_optimizer(runner)
        build_loop(runner, 'val')
    if not any(isinstance(hook, StopOnNonFiniteLoss) for hook in runner.hooks):
        runner.register_hook(StopOnNonFiniteLoss())
    runner.register_hook(BestMetricCheck())
    try:
        with (
            read_before(load_from, checkpoint),
            weight_mistakes(config),
            first_pass_mistakes(runner, on_start=on_start),
            loading_mistakes(config),
            stop_on_signals(runner),
        ):
            del checkpoint
            runner.train()
    except NonFiniteError as error:
        raise UserError(f'{config.filename}: {error}') from error


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    export_local_rank(arguments.local_rank)
    with mirrors_first(arguments.mirror):
        config = load_config(
            arguments.config, overrides=arguments.cfg_options, work_dir=arguments.work_dir
        )
        for key in ('train_dataloader', 'train_cfg', 'optim_wrapper'):
            if config.get(key) is None:
                raise UserError(f'{arguments.config} has no {key}, so there is nothing to train')
        # mmengine notes the whole path of the last checkpoint.
        check_is_text(os.path.abspath(config.work_dir), name='work dir')
        apply_arguments(config, arguments)
        apply_tensorboard(config)
        prepare_launcher(config)
        if not arguments.no_check and is_main_process(config.launcher):
            splits = [split for split in ('train', 'val') if config.get(f'{split}_cfg') is not None]
            require_sound_data(config, splits=splits, files=True)
        # Occupy the work directory here, because mmengine's Runner writes its config there before
        # it is known whether training will start.
        with ExitStack() as stack:
            start = Start()
            if is_main_process(config.launcher):
                occupied = occupied_work_dir(config.work_dir, config_file=config.filename)
                start = stack.enter_context(occupied)
            stack.enter_context(disk_mistakes(config.work_dir, advice=ADVICE))
            train(config, arguments.resume, start.note)
