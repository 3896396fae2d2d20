"""Formats rows and the summary as tables for the terminal."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table

from benchmarks.summary import Summary


def rows_table(title: str, rows: Sequence[Any]) -> Table:
    """Creates a table of dataclass instances, with a column for each attribute.

    Args:
        title: Title of the table.
        rows: One or more instances of the same class, whose attributes are strings, numbers or
            None.
    """
    table = Table(title=title, title_justify='left', box=box.SIMPLE_HEAD)
    for name, value in asdict(rows[0]).items():
        justify = 'left' if isinstance(value, str) else 'right'
        table.add_column(name.replace('_', ' '), justify=justify)
    for row in rows:
        table.add_row(*map(_text, asdict(row).values()))
    return table


def summary_table(summary: Summary) -> Table:
    """Creates a table of the summary's figures, group by group."""
    table = Table('figure', title='Summary', title_justify='left', box=box.SIMPLE_HEAD)
    table.add_column('value', justify='right')
    for group, figures in summary.items():
        if figures:
            table.add_section()
            table.add_row(f'[bold]{group}')
        for name, value in figures.items():
            table.add_row(f'  {name}', _text(value))
    return table


def _text(value: str | float | None) -> str:
    if value is None:
        return ''
    if not isinstance(value, float):
        return str(value)
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f'{value:.{digits}f}'
