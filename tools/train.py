"""Trains a detector or a segmentor, whichever the config describes."""

import argparse
import os

from mmengine.config import DictAction
from mmengine.runner import Runner

import nat_mm  # noqa: F401
from nat_mm.cli.config import load_config
from nat_mm.cli.errors import run_command


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='continue from this checkpoint, or without a value from the last one in the work dir',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size over auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='settings to override, as key=value'
    )
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none'
    )
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    os.environ.setdefault('LOCAL_RANK', str(arguments.local_rank))
    config = load_config(
        arguments.config, overrides=arguments.cfg_options, work_dir=arguments.work_dir
    )
    config.launcher = arguments.launcher
    if arguments.amp:
        config.optim_wrapper.type = 'AutocastOptimWrapper'
    if arguments.auto_scale_lr:
        config.auto_scale_lr.enable = True
    if arguments.resume:
        config.resume = True
        config.load_from = None if arguments.resume == 'auto' else arguments.resume
    Runner.from_cfg(config).train()


if __name__ == '__main__':
    run_command(main)
