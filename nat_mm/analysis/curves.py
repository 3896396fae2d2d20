"""Draws learning curves."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nat_mm.analysis.training_logs import Curve, TrainingLog
from nat_mm.errors import UserError
from nat_mm.files import whole_file
from nat_mm.fonts import write_plainly

FORMATS = ('.png', '.pdf', '.svg')

USUAL_KEYS = ('loss', 'coco/bbox_mAP', 'coco/segm_mAP', 'coco_panoptic/PQ', 'mIoU', 'accuracy/top1')
"""The training loss, and the main metric of each evaluator in this project's configs."""

_FEW_VALUES = 50


def choose_usual_keys(logs: Sequence[TrainingLog]) -> list[str]:
    """Chooses the numbers worth drawing.

    Args:
        logs: Logs of training runs.

    Returns:
        Those of `USUAL_KEYS` that are in any of the logs.

    Raises:
        UserError: None of the logs contains any of them.
    """
    keys = [key for key in USUAL_KEYS if any(key in log.keys for log in logs)]
    if not keys:
        raise UserError(
            f'none of {", ".join(USUAL_KEYS)} is in the logs: choose with --keys among '
            f'{", ".join(logs[0].keys)}'
        )
    return keys


def write_curves(
    curves: dict[str, dict[str, Curve]], output: Path, *, log_scale: Sequence[str]
) -> None:
    """Draws a panel for each number and writes them to one file, atomically.

    Args:
        curves: The curves by name of the number, then by name of the training run.
        output: File to write, with one of `FORMATS` as suffix.
        log_scale: Names of the numbers whose axis is logarithmic.
    """
    columns = min(len(curves), 2)
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(6 * columns, 3.6 * rows), layout='constrained')
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[len(curves) :]:
        axes.remove()
    names = dict.fromkeys(name for of_key in curves.values() for name in of_key)
    colors = {name: f'C{index}' for index, name in enumerate(names)}
    for axes, (key, of_key) in zip(panels, curves.items(), strict=False):
        draw_panel(axes, of_key, title=key, colors=colors)
        if key in log_scale:
            axes.set_yscale('log')
    with whole_file(output) as unfinished:
        figure.savefig(unfinished, dpi=110)


def draw_panel(
    axes: Axes, curves: dict[str, Curve], *, title: str, colors: dict[str, str] | None = None
) -> None:
    """Draws several curves into one panel.

    Args:
        axes: Where to draw.
        curves: The curves by name in the legend.
        title: What they show.
        colors: Matplotlib colors by name of the curve; None for matplotlib's default cycle.
    """
    for name, curve in curves.items():
        axes.plot(
            curve.places,
            curve.values,
            marker='o' if len(curve.values) <= _FEW_VALUES else None,
            markersize=4,
            color=colors and colors[name],
            label=name,
        )
    units = dict.fromkeys(curve.unit for curve in curves.values())
    axes.set(title=title, xlabel=' or '.join(units))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3, which='both')
    write_plainly(axes.title, *axes.legend().get_texts())
