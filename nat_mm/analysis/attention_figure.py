"""Draws the figures of ``nat-mm visualize-attention``."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Normalize, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from nat_mm.analysis.drawing import (
    COLORS,
    LAYER_COLORS,
    draw_fields,
    draw_heat,
    draw_window,
)
from nat_mm.analysis.fields import attention_rollouts, receptive_fields
from nat_mm.analysis.prepared_image import PreparedImage
from nat_mm.analysis.windows import AttentionWindow, attention_windows, choose_layer
from nat_mm.backbones.base import NeighborhoodBackbone
from nat_mm.files import whole_file

_SMALLEST_DRAWN = 480
"""In pixels: images with a shorter side below this are enlarged so that lines look thin."""


def draw_attention(
    backbone: NeighborhoodBackbone,
    prepared: PreparedImage,
    output: Path,
    *,
    points: Sequence[tuple[float, float]],
    stage: int,
    block: int = -1,
    head: int | None = None,
    rollout: bool = False,
) -> None:
    """Draws the window and the growing receptive field of a token, one row of panels per point.

    Args:
        backbone: A NAT, DiNAT or DiNAT_s.
        prepared: The image.
        output: File to write.
        points: (x, y) of each point in the tensor of ``prepared``.
        stage: Stage, from 0; negative numbers count from the last.
        block: Layer of that stage, from 0; negative numbers count from the last.
        head: Attention head, from 0; None for the mean over all.
        rollout: Whether to also draw attention rollout up to that layer.

    Raises:
        ValueError: There is no such layer or head, or a point is outside the image.
    """
    options = {'stage': stage, 'block': block}
    windows = attention_windows(backbone, prepared.tensor, points=points, head=head, **options)
    layer = choose_layer(backbone, **options)
    attention = backbone.stages[layer.stage].blocks[layer.block].attn
    heads = f'mean of {attention.num_heads} heads' if head is None else f'head {head}'
    zoom = -(-_SMALLEST_DRAWN // min(prepared.resized.shape[:2]))
    image = _enlarge(prepared.resized, zoom)
    height, width = image.shape[:2]

    columns = 3 if rollout else 2
    panel = (4.6, 4.6 * height / width)
    figure = Figure(
        figsize=(columns * (panel[0] + 0.9), len(points) * (panel[1] + 0.5) + 0.5),
        layout='constrained',
    )
    figure.suptitle(
        f'stage {layer.stage}, block {layer.block}: window of {attention.kernel_size} x '
        f'{attention.kernel_size}, dilation {attention.dilation}; {heads}'
    )
    rows = figure.subplots(len(points), columns, squeeze=False)
    for row, point, window in zip(rows, points, windows, strict=True):
        _show_window(row[0], image, window, zoom)
        fields = receptive_fields(backbone, prepared.tensor, point=point, **options)
        _show_fields(
            row[1],
            image,
            [_fit(field.pixels, prepared, zoom) for field in fields],
            [f'{field.layer.stage}.{field.layer.block}' for field in fields],
        )
        if rollout:
            ((_, shares),) = attention_rollouts(
                backbone, prepared.tensor, point=point, last=1, **options
            )
            _show_rollout(row[2], image, _fit(shares, prepared, zoom))
    with whole_file(output) as unfinished:
        figure.savefig(unfinished, dpi=100)


def _show_window(axes: Axes, image: NDArray, window: AttentionWindow, zoom: int) -> None:
    row, column = window.token
    padding = float(window.weights[~window.on_map].sum())
    _show(
        axes,
        draw_window(image, window, scale=(zoom, zoom)),
        f'window of the token in row {row}, column {column}'
        + (f'\n{padding:.0%} of the weight is on padding' if padding else ''),
    )
    highest = float(window.weights.max())
    bar = axes.figure.colorbar(
        ScalarMappable(Normalize(0, highest), COLORS), ax=axes, shrink=0.8, label='weight'
    )
    uniform = 1 / len(window.weights)
    if uniform < highest:
        bar.ax.axhline(uniform, color='white', linestyle=':')


def _show_fields(
    axes: Axes, image: NDArray, fields: Sequence[NDArray], names: Sequence[str]
) -> None:
    share = fields[-1].mean()
    _show(axes, draw_fields(image, fields), f'receptive field: {share:.0%} of the image')
    edges = np.arange(len(names) + 1) - 0.5
    colors = ScalarMappable(BoundaryNorm(edges, 256), LAYER_COLORS)
    ticks = np.unique(np.linspace(0, len(names) - 1, min(len(names), 10)).round().astype(int))
    bar = axes.figure.colorbar(
        colors, ax=axes, shrink=0.8, ticks=ticks, label='first seen behind stage.block'
    )
    bar.ax.set_yticklabels([names[tick] for tick in ticks])


def _show_rollout(axes: Axes, image: NDArray, shares: NDArray) -> None:
    # A few pixels may get far more than all the others.
    highest = float(np.quantile(shares, 0.999)) or float(shares.max())
    # In every layer half of the share stays with the token, far more than any neighbor gets.
    drawn = draw_heat(image, shares**0.5, highest=highest**0.5)
    _show(axes, drawn, 'attention rollout')
    axes.figure.colorbar(
        ScalarMappable(PowerNorm(0.5, 0, highest / float(shares.mean())), COLORS),
        ax=axes,
        shrink=0.8,
        label='share of a pixel / mean share',
    )


def _show(axes: Axes, image: NDArray, title: str) -> None:
    axes.imshow(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()


def _fit(pixels: Tensor, prepared: PreparedImage, zoom: int) -> NDArray:
    """Crops and enlarges a map of the tensor's pixels to fit the drawn image."""
    height, width = prepared.resized.shape[:2]
    return _enlarge(pixels[:height, :width].numpy(), zoom)


def _enlarge(pixels: NDArray, zoom: int) -> NDArray:
    return pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)
