"""Plots the losses and metrics in mmengine's logs of one or more training runs.

Each metric, such as loss or coco/bbox_mAP, gets a panel with one curve per run.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nat_mm.analysis.curves import FORMATS, choose_usual_keys, write_curves
from nat_mm.analysis.training_logs import TrainingLog, read_log
from nat_mm.errors import UserError


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'logs',
        nargs='+',
        type=Path,
        help='work dirs (the logs of resumed runs are joined) or vis_data/scalars.json files',
    )
    parser.add_argument(
        '--keys',
        nargs='+',
        help='metrics to plot; default: the loss and the main metrics',
    )
    parser.add_argument(
        '--legend',
        nargs='+',
        help='names of the runs, one per log; default: the folder names',
    )
    parser.add_argument(
        '--log-scale', nargs='+', default=[], metavar='KEY', help='metrics with a logarithmic axis'
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('curves.png'),
        help=f'file to write, {", ".join(FORMATS)}; default: %(default)s',
    )
    parser.add_argument(
        '--list-keys', action='store_true', help='list the metrics in each log, and plot nothing'
    )
    return parser.parse_args(arguments)


def check_arguments(arguments: argparse.Namespace) -> None:
    if arguments.out.suffix.lower() not in FORMATS:
        raise UserError(f'--out must end with {", ".join(FORMATS)}, got {arguments.out}')
    if arguments.out.is_dir():
        raise UserError(f'--out {arguments.out} is a folder')
    if arguments.legend is not None and len(arguments.legend) != len(arguments.logs):
        raise UserError(
            f'--legend has {len(arguments.legend)} names for {len(arguments.logs)} logs'
        )
    names = legend(arguments)
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'two logs are called {name}: tell them apart with --legend')


def legend(arguments: argparse.Namespace) -> list[str]:
    """Returns the names of the training runs: the given ones, or those of the folders."""
    if arguments.legend is not None:
        return arguments.legend
    return [training_name(path) for path in arguments.logs]


def training_name(path: Path) -> str:
    """Returns the name of the work directory, or of another folder or file with the log."""
    folder = path.absolute()
    if folder.suffix == '.json' and folder.parent.name == 'vis_data':
        # work_dir/20260131_235959/vis_data/scalars.json
        folder = folder.parents[2]
    return folder.name


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    check_arguments(arguments)
    logs = dict(zip(legend(arguments), map(read_log, arguments.logs), strict=True))
    if arguments.list_keys:
        for name, log in logs.items():
            print(f'{name}: {", ".join(log.keys)}')
        return
    keys = arguments.keys or choose_usual_keys(list(logs.values()))
    foreign = [key for key in arguments.log_scale if key not in keys]
    if foreign:
        raise UserError(f'--log-scale {foreign[0]} is not among {", ".join(keys)}')
    curves = {key: curves_of(key, logs, required=arguments.keys is not None) for key in keys}
    write_curves(curves, arguments.out, log_scale=arguments.log_scale)
    print(arguments.out)


def curves_of(key: str, logs: dict[str, TrainingLog], *, required: bool) -> dict:
    """Returns the curves of a number by training run; skips runs without it unless required."""
    return {name: log.curve(key) for name, log in logs.items() if required or key in log.keys}
