"""Counts the parameters and multiply-adds of a detector, segmentor or classifier.

It needs no weights, data or GPU, and takes seconds. The default image size is that of the published
figures: 800 x 1280 for detectors, and the size in the test pipeline for segmentors and classifiers.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout

from mmengine.config import Config
from torch import nn

from nat_mm.analysis.flops import ModelCosts, count_costs
from nat_mm.analysis.flops_report import FlopsReport
from nat_mm.analysis.without_values import WithoutValues
from nat_mm.analysis.workloads import Workload, find_workload
from nat_mm.commands.arguments import add_config, add_config_overrides, check_counts, make_parser
from nat_mm.commands.misfits import explain_misfit
from nat_mm.config.reading import load_config
from nat_mm.errors import UserError, describe_error
from nat_mm.inference.load_model import build_module


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_config(parser)
    parser.add_argument(
        '--shape', type=int, nargs=2, metavar=('H', 'W'), help='height and width of the image'
    )
    parser.add_argument(
        '--depth', type=int, default=2, help='levels of modules in the table; default: %(default)s'
    )
    parser.add_argument(
        '--json', action='store_true', help='print all modules as JSON instead of a table'
    )
    add_config_overrides(parser)
    return parser.parse_args(arguments)


def check_arguments(arguments: argparse.Namespace) -> None:
    if arguments.shape is not None and min(arguments.shape) < 1:
        height, width = arguments.shape
        raise UserError(f'--shape must be a height and a width in pixels, got {height} {width}')
    check_counts(arguments, 'depth')


def choose_shape(
    arguments: argparse.Namespace, config: Config, workload: Workload
) -> tuple[int, int]:
    shape = arguments.shape or workload.find_shape(config)
    if shape is None:
        raise UserError(
            f'the test pipeline of {config.filename} has no image size: pass --shape H W'
        )
    return tuple(shape)


def build(config: Config) -> nn.Module:
    """Builds the model, without values if possible."""
    try:
        with WithoutValues():
            return build_module(config)
    except (RuntimeError, TypeError):
        return build_module(config)


def count(
    model: nn.Module,
    workload: Workload,
    shape: tuple[int, int],
    *,
    build_with_values: Callable[[], nn.Module],
    source: str,
    explain: Callable[[], str | None] = lambda: None,
) -> ModelCosts:
    try:
        try:
            return count_costs(model, shape, workload.run)
        except (RuntimeError, TypeError):
            print(
                "this model's operations depend on values: computing them, which takes longer",
                file=sys.stderr,
            )
            return count_costs(build_with_values(), shape, workload.run, compute=True)
    # A user's own model may raise anything.
    except Exception as error:
        misfit = explain()
        if misfit:
            raise UserError(f'{source}: {misfit}') from error
        height, width = shape
        raise UserError(
            f'cannot run the {type(model).__name__} of {source} on an image of {height} x {width}: '
            f'{describe_error(error)}'
        ) from error


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    check_arguments(arguments)
    # Some models print messages, but stdout is only for the result.
    with redirect_stdout(sys.stderr):
        config = load_config(arguments.config, overrides=arguments.cfg_options)
        model = build(config)
        workload = find_workload(model, config)
        shape = choose_shape(arguments, config, workload)
        report = FlopsReport(
            config=arguments.config,
            model=type(model).__name__,
            shape=shape,
            convention=workload.convention,
            costs=count(
                *(model, workload, shape),
                build_with_values=lambda: build_module(config),
                source=arguments.config,
                explain=lambda: explain_misfit(config),
            ),
        )
    if arguments.json:
        print(report.as_json())
    else:
        report.print_table(depth=arguments.depth)
