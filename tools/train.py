"""Trains a detector, a segmentor or a classifier, whichever the config describes.

Losses and metrics are logged as JSON lines, which tools/plot_logs.py draws. With tensorboard = True
in the config, or --cfg-options tensorboard=True, they are also logged for TensorBoard.
"""

import argparse
from collections.abc import Sequence

from mmengine.config import Config

from nat_mm.checkpoints import converted_source
from nat_mm.cli.arguments import add_run_options, export_local_rank
from nat_mm.cli.checkpoint import (
    check_any_key_fits,
    check_checkpoint_fits,
    check_resumable,
    find_last_checkpoint,
    read_checkpoint,
)
from nat_mm.cli.config import load_config
from nat_mm.cli.errors import CommandError, run_command, weight_mistakes
from nat_mm.cli.launcher import prepare_launcher
from nat_mm.cli.runner import build_loop, build_optimizer, build_runner
from nat_mm.cli.tensorboard import apply_tensorboard

MIXED_PRECISION_WRAPPERS = ('AutocastOptimWrapper', 'AmpOptimWrapper')


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from this checkpoint, or without a value from the last one in the work dir',
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision: fp16 on a GPU, bf16 on a CPU'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size over auto_scale_lr.base_batch_size',
    )
    add_run_options(parser)
    return parser.parse_args(arguments)


def apply_arguments(config: Config, arguments: argparse.Namespace) -> None:
    """Writes the options of the command line into the config."""
    config.launcher = arguments.launcher
    if arguments.amp and config.optim_wrapper.type not in MIXED_PRECISION_WRAPPERS:
        if config.optim_wrapper.type != 'OptimWrapper':
            raise CommandError(
                f'--amp works with the optimizer wrapper OptimWrapper, '
                f'{arguments.config} has {config.optim_wrapper.type}'
            )
        config.optim_wrapper.type = 'AutocastOptimWrapper'
    if arguments.auto_scale_lr:
        if 'base_batch_size' not in config.get('auto_scale_lr', {}):
            raise CommandError(
                f'--auto-scale-lr needs auto_scale_lr.base_batch_size in {arguments.config}'
            )
        config.auto_scale_lr.enable = True
    if arguments.resume:
        checkpoint = arguments.resume
        if checkpoint == 'auto':
            checkpoint = find_last_checkpoint(config.work_dir)
        # Without one yet, a job that is restarted again and again begins here.
        if checkpoint is not None:
            config.resume = True
            config.load_from = checkpoint


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    export_local_rank(arguments.local_rank)
    config = load_config(
        arguments.config, overrides=arguments.cfg_options, work_dir=arguments.work_dir
    )
    apply_arguments(config, arguments)
    apply_tensorboard(config)
    prepare_launcher(config)
    load_from = config.get('load_from')
    checkpoint = read_checkpoint(load_from) if load_from else None
    if checkpoint is not None and not config.resume:
        config.load_from = converted_source(load_from)

    runner = build_runner(config)
    if checkpoint is not None and config.resume:
        check_resumable(checkpoint, source=load_from)
        check_checkpoint_fits(runner.model, checkpoint, source=load_from)
    elif checkpoint is not None:
        check_any_key_fits(runner.model, checkpoint, source=load_from)
    del checkpoint
    build_loop(runner, 'train')
    build_optimizer(runner)
    build_loop(runner, 'val')
    with weight_mistakes(config):
        runner.train()


if __name__ == '__main__':
    run_command(main)
