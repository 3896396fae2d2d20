"""Draws confusion matrices, and writes them as tables."""

import csv
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nat_mm.analysis.confusion import ConfusionMatrix
from nat_mm.files import whole_file
from nat_mm.fonts import writable, write_plainly

_MOST_NUMBERS = 30
"""Up to this many classes, there is room for a number in each cell."""
_MOST_NAMES = 250
"""Up to this many classes, there is room for their names."""


def shares_of_rows(matrix: NDArray) -> NDArray:
    """Divides each row by its sum.

    Args:
        matrix: [n, n], counts.

    Returns:
        [n, n], float: shares from 0 to 1; zeros where a row has no counts.
    """
    return matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)


def write_confusion_table(metric: ConfusionMatrix, path: Path) -> None:
    """Writes the counts as CSV: a row for each true class, a column for each predicted one.

    Args:
        metric: The metric after the run.
        path: File to write.
    """
    with whole_file(path) as unfinished, unfinished.open('w', encoding='utf-8', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['true class', *metric.names])
        for name, counts in zip(metric.names, metric.matrix.tolist(), strict=True):
            writer.writerow([name, *counts])


def draw_confusion(metric: ConfusionMatrix, path: Path) -> None:
    """Draws the matrix, with each row as shares of the samples that truly belong to the class.

    With few classes, the shares are also written into the cells, in percent. The classes are in the
    order of the config.

    Args:
        metric: The metric after the run.
        path: PNG file to write.
    """
    count = len(metric.names)
    shares = shares_of_rows(metric.matrix)
    # Side of a cell in inches, and the font size in points that fits its height.
    cell = float(np.clip(14 / count, 0.11, 0.45)) if count <= _MOST_NAMES else 20 / count
    letters = float(np.clip(cell * 72 * 0.6, 5, 10))
    longest = max(map(len, map(_shorten, metric.names))) if count <= _MOST_NAMES else 0
    side = cell * count + longest * letters / 72 * 0.6 + 1.2
    figure = Figure(figsize=(side + 0.8, side), layout='constrained')
    axes = figure.subplots()
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1, interpolation='nearest')
    if count <= _MOST_NAMES:
        # Matplotlib sets the tick labels again when it draws them.
        names = [writable(_shorten(name)) for name in metric.names]
        axes.set_xticks(range(count), names, rotation=90, fontsize=letters)
        axes.set_yticks(range(count), names, fontsize=letters)
        write_plainly(*axes.get_xticklabels(), *axes.get_yticklabels())
    if count <= _MOST_NUMBERS:
        _write_shares(axes, shares, letters)
    axes.set(xlabel='predicted', ylabel='true')
    colors = ScalarMappable(Normalize(0, 1), 'Blues')
    figure.colorbar(colors, ax=axes, label='share of the row', shrink=0.8)
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, dpi=100)


def _shorten(name: str) -> str:
    return name if len(name) <= 30 else f'{name[:29]}…'


def _write_shares(axes: Axes, shares: NDArray, letters: float) -> None:
    for row, column in zip(*np.nonzero(shares >= 0.005), strict=True):
        share = shares[row, column]
        axes.text(
            column,
            row,
            f'{share:.0%}'.removesuffix('%'),
            ha='center',
            va='center',
            fontsize=letters * 0.9,
            color='white' if share > 0.5 else 'black',
        )


def list_confusions(metric: ConfusionMatrix, *, limit: int = 5) -> list[str]:
    """Describes the most frequent confusions, by share of the true class.

    Args:
        metric: The metric after the run.
        limit: Maximum number of confusions to return.
    """
    shares = shares_of_rows(metric.matrix)
    np.fill_diagonal(shares, 0)
    shares[metric.class_count :] = 0
    order = np.argsort(-shares, axis=None, kind='stable')[:limit]
    places = [np.unravel_index(place, shares.shape) for place in order]
    return [
        f'{shares[place]:.0%} of {metric.names[place[0]]} taken for {metric.names[place[1]]}'
        for place in places
        if shares[place] >= 0.005
    ]
