"""Draws how instances are distributed over classes and sizes."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nat_mm.data.summaries import Summary
from nat_mm.errors import UserError

BARS = 40
"""Maximum number of classes drawn as bars, those with the most instances."""


def draw_histograms(summaries: Sequence[Summary], file_format: str) -> bytes:
    """Draws a row of histograms for each dataset.

    Args:
        summaries: What the datasets contain.
        file_format: ``png``, ``pdf`` or ``svg``.

    Returns:
        The content of the image file.

    Raises:
        UserError: There is nothing to draw.
    """
    drawn = [each for each in summaries if each.classes]
    if not drawn:
        raise UserError('there is no dataset to draw a histogram of')
    columns = 1 + max(len(each.distributions) for each in drawn)
    figure = Figure(figsize=(5 * columns, 4 * len(drawn)), layout='constrained')
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(drawn), columns, squeeze=False)
    for row, summary in zip(rows, drawn, strict=True):
        row[0].set_title(summary.title, loc='left', fontsize='small', parse_math=False)
        _draw_classes(row[0], summary)
        for axes in row[1 + len(summary.distributions) :]:
            axes.remove()
        for axes, (name, values) in zip(row[1:], summary.distributions.items(), strict=False):
            values = np.asarray(values)[np.isfinite(values)]
            axes.hist(values, bins=40, color='tab:blue')
            axes.set_xlabel(name)
    content = io.BytesIO()
    figure.savefig(content, format=file_format)
    return content.getvalue()


def _draw_classes(axes, summary: Summary) -> None:
    column = 'instances' if 'instances' in next(iter(summary.classes.values())) else 'images'
    counts = sorted(summary.classes.items(), key=lambda item: -item[1][column])[:BARS]
    positions = range(len(counts))
    axes.bar(positions, [each[column] for _, each in counts], color='tab:blue')
    axes.set_xticks(
        positions,
        [name for name, _ in counts],
        rotation=90,
        fontsize='x-small',
        parse_math=False,
    )
    axes.set_ylabel(column)
