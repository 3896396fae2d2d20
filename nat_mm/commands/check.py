"""Checks a config and its data, as every training run does before it starts.

Prints what each dataset contains, then errors and warnings. The exit code is 2 if there are errors.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from nat_mm.commands.arguments import add_config, add_config_overrides, make_parser
from nat_mm.commands.progress import show_progress
from nat_mm.commands.running import printable
from nat_mm.config.reading import load_config
from nat_mm.data.check import check_config
from nat_mm.data.histogram import draw_histograms
from nat_mm.data.summaries import Summary
from nat_mm.errors import UserError
from nat_mm.files import write_bytes

HISTOGRAM_SUFFIXES = ('.png', '.pdf', '.svg')


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_config(parser)
    parser.add_argument(
        '--thorough',
        action='store_true',
        help='read all label images, not only a sample',
    )
    parser.add_argument(
        '--histogram',
        type=Path,
        metavar='FILE',
        help='draw the distribution of instances over classes and sizes: .png, .pdf or .svg',
    )
    add_config_overrides(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(arguments)
    histogram = arguments.histogram
    if histogram is not None and histogram.suffix.lower() not in HISTOGRAM_SUFFIXES:
        raise UserError(f'--histogram must end with .png, .pdf or .svg, got {histogram}')
    config = load_config(arguments.config, overrides=arguments.cfg_options)
    with show_progress() as progress:
        report = check_config(
            config, thorough=arguments.thorough, summarize=True, progress=progress
        )
    console = Console(markup=False, highlight=False)
    for summary in report.summaries:
        print_summary(summary, console)
    for finding in report.errors:
        print(f'error: {printable(finding.text)}')
    for finding in report.warnings:
        print(f'warning: {printable(finding.text)}')
    if histogram is not None:
        write_bytes(histogram, draw_histograms(report.summaries, histogram.suffix.lower()[1:]))
        print(f'wrote {histogram}')
    if report.errors:
        sys.exit(2)
    print(f'{config.filename}: no errors')


def print_summary(summary: Summary, console: Console) -> None:
    """Prints what a dataset contains."""
    console.print(f'\n{printable(summary.title)}', style='bold', soft_wrap=True)
    for name, value in summary.facts.items():
        console.print(f'  {name}: {printable(str(value))}', soft_wrap=True)
    if not summary.classes:
        return
    columns = list(next(iter(summary.classes.values())))
    table = Table('class')
    for column in columns:
        table.add_column(column, justify='right')
    for name, counts in summary.classes.items():
        table.add_row(printable(name), *(str(counts[column]) for column in columns))
    console.print(table)
