"""Writes legends of the colors in images, and lists of a model's classes, as HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from mmengine.structures import BaseDataElement
from torch import Tensor

from nat_mm.analysis.drawing import COLORS, color_at

LONGEST = 40
"""Maximum number of entries shown."""


@dataclass(frozen=True)
class Entry:
    """One line of a legend.

    Attributes:
        name: Name of the class.
        note: Its count, its share of the pixels, or its score, as text.
        share: Length of the bar before the note, from 0 to 1.
        color: Color in which it is drawn, RGB, or None.
    """

    name: str
    note: str
    share: float
    color: tuple[int, int, int] | None


def list_entries(
    sample: BaseDataElement,
    *,
    classes: list[str],
    palette: list[tuple[int, int, int]],
    threshold: float,
) -> list[Entry]:
    """Lists the classes that a model found in an image, the most frequent or likely first.

    Args:
        sample: Output of a model: instances, panoptic segments, a label map or scores of classes.
        classes: Names of the classes.
        palette: Their colors.
        threshold: Lowest score of the instances that count.

    Returns:
        The entries.
    """
    if 'pred_score' in sample:
        scores = sample.pred_score.numpy()
        likeliest = np.argsort(-scores)[:5]
        return [
            Entry(classes[label], f'{scores[label]:.1%}', float(scores[label]), None)
            for label in likeliest
        ]
    if 'pred_sem_seg' in sample:
        counts = _count_pixels(sample.pred_sem_seg.data, len(classes))
    elif 'pred_panoptic_seg' in sample:
        from mmdet.evaluation import INSTANCE_OFFSET

        counts = _count_pixels(sample.pred_panoptic_seg.sem_seg % INSTANCE_OFFSET, len(classes))
    else:
        found = sample.pred_instances
        labels = found.labels[found.scores >= threshold].numpy()
        counts = np.bincount(labels, minlength=len(classes))
    total = counts.sum()
    by_area = 'pred_instances' not in sample or 'pred_panoptic_seg' in sample
    return [
        Entry(
            classes[label],
            f'{counts[label] / total:.1%}' if by_area else str(counts[label]),
            float(counts[label] / total),
            tuple(int(value) for value in palette[label]),
        )
        for label in np.argsort(-counts, kind='stable')
        if counts[label]
    ]


def write_legend(entries: list[Entry]) -> str:
    """Writes a legend as HTML.

    Args:
        entries: Its entries.

    Returns:
        The HTML; names are escaped.
    """
    lines = []
    for entry in entries[:LONGEST]:
        lines.append(
            f'<li>{_write_swatch(entry.color)}<span class="name">{escape(entry.name)}</span>'
            f'<span class="bar"><span style="width: {entry.share:.1%}"></span></span>'
            f'<span class="note">{escape(entry.note)}</span></li>'
        )
    if len(entries) > LONGEST:
        lines.append(f'<li>and {len(entries) - LONGEST} more</li>')
    return f'<ul class="legend">{"".join(lines)}</ul>'


def write_classes(
    kind: str, classes: Sequence[str], palette: Sequence[tuple[int, int, int]] | None
) -> str:
    """Writes the number of a model's classes as HTML that expands to their names.

    Args:
        kind: Description of the model.
        classes: Names of the classes.
        palette: The colors in which they are drawn, or None.

    Returns:
        The HTML; names are escaped.
    """
    entries = [
        f'<li>{_write_swatch(palette and palette[label])}{escape(name)}</li>'
        for label, name in enumerate(classes)
    ]
    number = '1 class' if len(classes) == 1 else f'{len(classes)} classes'
    return (
        f'<details class="known"><summary>{escape(kind)}, knows {number}</summary>'
        f'<ul>{"".join(entries)}</ul></details>'
    )


def write_scale(highest: float) -> str:
    """Writes the color scale of attention weights as HTML.

    Args:
        highest: The weight with the brightest color.
    """
    stops = (color_at(COLORS, step / 8)[::-1] for step in range(9))
    colors = ', '.join('rgb({}, {}, {})'.format(*stop) for stop in stops)
    return (
        '<span class="scale"><span>weight 0</span> '
        f'<span class="colors" style="background: linear-gradient(to right, {colors})"></span> '
        f'<span>{highest:.3f}</span></span> '
    )


def _write_swatch(color: tuple[int, int, int] | None) -> str:
    if color is None:
        return ''
    return '<span class="swatch" style="background: rgb({}, {}, {})"></span>'.format(*color)


def _count_pixels(labels: Tensor, number: int) -> np.ndarray:
    """Counts the pixels of each class; labels beyond the last class are not counted."""
    return np.bincount(labels.flatten().numpy(), minlength=number)[:number]
