"""Draws figures that compare attention patterns side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nat_mm.analysis.drawing import COLORS
from nat_mm.analysis.pattern_comparison import PatternRow
from nat_mm.files import whole_file


def draw_equivariance(rows: Sequence[PatternRow], output: Path) -> None:
    """Draws, for each pattern and stage, how much each token changes when the image moves.

    The panels of a stage share one scale, from 0 to the highest value inside the border. The tokens
    on the border are excluded because they change most, through the tokenizer, and equally so in
    all patterns.

    Args:
        rows: Results for each pattern.
        output: File to write.
    """
    stages = len(rows[0].equivariance)
    figure = Figure(figsize=(2.6 * len(rows) + 0.8, 2.7 * stages), layout='constrained')
    grid = figure.subplots(stages, len(rows), squeeze=False)
    for number, line in enumerate(grid):
        insides = [row.equivariance[number].change[1:-1, 1:-1] for row in rows]
        highest = max([float(inside.max()) for inside in insides if inside.numel()], default=1.0)
        for axes, row in zip(line, rows, strict=True):
            found = row.equivariance[number]
            heatmap = axes.imshow(
                found.change.numpy(), cmap=COLORS, vmin=0, vmax=max(highest, 1e-12)
            )
            axes.set(xticks=[], yticks=[])
            heading = f'{row.pattern}\n' if number == 0 else ''
            axes.set_title(f'{heading}middle: {found.error:.1e}')
        line[0].set_ylabel(f'stage {found.stage}\nby {found.stride} pixels')
        figure.colorbar(heatmap, ax=list(line), shrink=0.8)
    _save(figure, output)


def draw_field_growth(sides: Mapping[str, Sequence[float]], output: Path) -> None:
    """Draws how the receptive field of the token in the middle grows from layer to layer.

    Args:
        sides: By pattern, the side of the field in pixels after each layer.
        output: File to write.
    """
    figure = Figure(figsize=(7.2, 4.2), layout='constrained')
    axes = figure.subplots()
    for (pattern, values), style in zip(sides.items(), ('-', ':', '--', '-.'), strict=False):
        layers = range(1, len(values) + 1)
        axes.plot(layers, values, style, marker='o', markersize=4, label=pattern)
    axes.set(xlabel='layer', ylabel='side of the receptive field, pixels', ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, output)


def _save(figure: Figure, output: Path) -> None:
    with whole_file(output) as unfinished:
        figure.savefig(unfinished, dpi=100)
