"""Draws the summary's ratios as bars, and the growth curve."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from benchmarks.growth import GrowthRow
from benchmarks.summary import GROWTH, Summary


def file_types() -> set[str]:
    """Returns the suffixes of the supported file types, without the dot."""
    return set(FigureCanvasBase.get_supported_filetypes())


def draw_summary(summary: Summary, growth: Sequence[GrowthRow], title: str, output: Path) -> None:
    """Draws bars for each group of the summary and, if it was measured, the growth.

    Args:
        summary: Figures by group and name.
        growth: Rows of the section growth; empty without that section.
        title: Title of the figure.
        output: File to write, in the format given by its suffix.
    """
    bars = {group: figures for group, figures in summary.items() if figures and group != GROWTH}
    heights = [len(figures) + 2 for figures in bars.values()] + [10] * bool(growth)
    figure = Figure(figsize=(11, 0.32 * sum(heights) + 1), layout='constrained')
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    for axes, (group, figures) in zip(panels, bars.items(), strict=False):
        _draw_bars(axes, group, figures)
    if growth:
        _draw_growth(panels[-1], growth)
    figure.savefig(output, dpi=110)


def _draw_bars(axes: Axes, group: str, figures: dict[str, float]) -> None:
    bars = axes.barh(list(figures), list(figures.values()))
    axes.bar_label(bars, fmt='%.2f', padding=3)
    axes.axvline(1, color='black', linewidth=0.8, linestyle='--')
    axes.set_title(group, fontsize=10)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.tick_params(labelsize=9)


def _draw_growth(axes: Axes, growth: Sequence[GrowthRow]) -> None:
    for what in dict.fromkeys(row.what for row in growth):
        points = [(row.side**2, row.relative) for row in growth if row.what == what]
        axes.plot(*zip(*points, strict=True), marker='o', label=what)
    sides = sorted({row.side for row in growth})
    areas = [side**2 for side in sides]
    axes.set_xticks(areas, [f'{side}x{side}' for side in sides], rotation=30, ha='right')
    axes.set_ylim(bottom=0)
    axes.axhline(1, color='black', linewidth=0.8, linestyle='--')
    axes.set_title('time per pixel, relative to the smallest image', fontsize=10)
    axes.set_xlabel('image, by area')
    axes.legend()
    axes.grid(alpha=0.3)
