"""Benchmarks neighborhood attention against Swin's window attention on this machine's CPU.

Measures the operator, the attention module, the backbone, the growth of time with image size, and
the backbone exported to ONNX. For times, which are medians, the candidates run in turns in one
process; for memory, each model runs in a separate process.
"""

import argparse
import importlib
import json
import os
import platform
import re
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from rich.console import Console

import nat_mm
from benchmarks import natten_flex
from benchmarks.operator import auto_backend
from benchmarks.settings import MINIMUM_REPEATS, Settings
from benchmarks.summary import merge
from benchmarks.tables import rows_table, summary_table
from nat_mm.commands.running import run_command
from nat_mm.errors import UserError
from nat_mm.training.bf16_instructions import avoid_unusable_amx

SECTIONS = {
    'operator': 'det,lite',
    'module': 'det,lite',
    'backbone': 'det,lite',
    'growth': 'det,lite',
    'onnx': 'det,lite,onnx',
}
"""Sections that can be measured, and the extras that they need."""

QUICK_REPEATS = 2
QUICK_WARNING = 'These figures mean nothing: --quick measures small inputs, few times.'


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--sections', nargs='+', choices=SECTIONS, default=list(SECTIONS), help='default: all'
    )
    parser.add_argument(
        '--threads', type=int, default=torch.get_num_threads(), help='default: %(default)s'
    )
    parser.add_argument(
        '--repeats',
        type=int,
        help=f'samples behind each median, at least {MINIMUM_REPEATS}, which is the default',
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all figures there')
    parser.add_argument(
        '--plot', type=Path, metavar='FILE', help='draw the ratios and the growth, e.g. a PNG'
    )
    parser.add_argument(
        '--quick', action='store_true', help='a trial of every step; its figures mean nothing'
    )
    return parser.parse_args()


def make_settings(arguments: argparse.Namespace) -> Settings:
    repeats = arguments.repeats
    if repeats is None:
        repeats = QUICK_REPEATS if arguments.quick else MINIMUM_REPEATS
    try:
        return Settings(threads=arguments.threads, repeats=repeats, quick=arguments.quick)
    except ValueError as error:
        raise UserError(f'--{error}') from error


def load(module: str, extras: str, option: str) -> ModuleType:
    """Imports a module of benchmarks that needs optional packages."""
    try:
        return importlib.import_module(f'benchmarks.{module}')
    except ModuleNotFoundError as error:
        raise UserError(
            f"{option} needs {error.name}, which is not installed: pip install 'nat_mm[{extras}]'"
        ) from error


def load_sections(names: list[str]) -> dict[str, ModuleType]:
    """Loads all requested sections, in order, so that missing packages are reported at once."""
    return {
        name: load(name, extras, f'--sections {name}')
        for name, extras in SECTIONS.items()
        if name in names
    }


def check_output(option: str, path: Path | None) -> None:
    if path is None:
        return
    if path.is_dir():
        raise UserError(f'{option} must name a file, but {path} is a folder')
    if not path.parent.is_dir():
        raise UserError(f'{option} {path}: there is no folder {path.parent}')
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f'{option} {path} cannot be written')


def load_plot(path: Path) -> ModuleType:
    plot = load('plot', 'demo', '--plot')
    if path.suffix[1:] not in plot.file_types():
        raise UserError(
            f'--plot must end in one of {", ".join(sorted(plot.file_types()))}, got {path}'
        )
    return plot


def describe_environment(settings: Settings) -> dict[str, Any]:
    cpuinfo = Path('/proc/cpuinfo')
    model = cpuinfo.exists() and re.search(r'model name\s*: (.+)', cpuinfo.read_text())
    return {
        'processor': model[1] if model else platform.processor() or platform.machine(),
        'processors usable': len(os.sched_getaffinity(0)),
        **asdict(settings),
        'nat_mm': nat_mm.__version__,
        'torch': torch.__version__,
        'python': platform.python_version(),
        'backend, float32': auto_backend(torch.float32),
        'backend, bfloat16': auto_backend(torch.bfloat16),
        'natten': natten_flex.problem() or 'NATTEN runs uncompiled, forward only',
    }


def main() -> None:
    arguments = parse_arguments()
    settings = make_settings(arguments)
    check_output('--json', arguments.json)
    check_output('--plot', arguments.plot)
    plot = arguments.plot and load_plot(arguments.plot)
    sections = load_sections(arguments.sections)

    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    avoid_unusable_amx()
    environment = describe_environment(settings)
    title = (
        f'{environment["processor"]}, threads: {settings.threads}, medians of {settings.repeats}, '
        f'torch {environment["torch"]}, backend {environment["backend, float32"]}'
    )
    if settings.quick:
        title = f'{QUICK_WARNING}\n{title}'
    # If the output goes to a file, rich would assume 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(title)
    if 'operator' in sections:
        console.print(environment['natten'])
    rows = {}
    for name, section in sections.items():
        print(f'measuring: {name} ...', file=sys.stderr, flush=True)
        rows[name] = section.measure(settings)
        console.print(rows_table(section.TITLE, rows[name]))
    summary = merge(section.summarize(rows[name]) for name, section in sections.items())
    console.print(summary_table(summary))
    if settings.quick:
        console.print(QUICK_WARNING)

    if arguments.json:
        measured = {name: [asdict(row) for row in each] for name, each in rows.items()}
        report = {'environment': environment, **measured, 'summary': summary}
        arguments.json.write_text(json.dumps(report, indent=2) + '\n')
        print(arguments.json)
    if plot:
        plot.draw_summary(summary, rows.get('growth', ()), title, arguments.plot)
        print(arguments.plot)


if __name__ == '__main__':
    run_command(main)
