"""Draws docs/architecture.svg: the stages of a backbone, and the parts of a layer.

python docs/architecture.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle

TARGET = Path(__file__).with_name('architecture.svg')
CONVOLUTION, ATTENTION, LINEAR, NORM = '#cfe8e5', '#f6d186', '#d9d7f1', '#e8e8e8'
LAYER_COLORS = {'norm': NORM, 'neighborhood\nattention': ATTENTION, 'MLP': LINEAR}


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, color: str) -> None:
    """Draws a box with a text; x is its left side, y its middle."""
    style = 'round,pad=0,rounding_size=0.08'
    axes.add_patch(
        FancyBboxPatch((x, y - height / 2), width, height, boxstyle=style, fc=color, ec='#444444')
    )
    axes.text(x + width / 2, y, text, ha='center', va='center', fontsize=9)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str = '') -> None:
    """Draws an arrow with a text below its middle."""
    axes.annotate('', end, start, arrowprops={'arrowstyle': '-|>', 'color': '#444444', 'lw': 1.1})
    if text:
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        axes.text(middle[0], middle[1] - 0.12, text, ha='center', va='top', fontsize=7.5)


def draw_stages(axes: Axes, y: float) -> None:
    """Draws the image, the tokenizer, four stages with downsamplers, and the outputs."""
    for offset in (0.16, 0.08, 0):
        axes.add_patch(Rectangle((0.1 + offset, y - 0.5 + offset), 0.9, 0.9, fc='w', ec='#444444'))
    axes.text(0.55, y - 0.05, 'image', ha='center', va='center', fontsize=9)
    axes.text(0.6, y - 0.62, '3 x H x W', ha='center', va='top', fontsize=7.5)
    box(axes, 1.6, y, 1.1, 0.9, 'tokenizer\n2 convolutions\n3x3, stride 2', CONVOLUTION)
    arrow(axes, (1.2, y), (1.6, y))
    left = 2.7
    for stage in range(4):
        if stage:
            box(axes, left + 0.2, y, 0.75, 0.9, 'down-\nsampler\n3x3, /2', CONVOLUTION)
            arrow(axes, (left, y), (left + 0.2, y))
            left += 0.95
        arrow(axes, (left, y), (left + 0.2, y))
        left += 0.2
        box(axes, left, y, 1.0, 1.2, f'stage {stage + 1}\nNA layers', ATTENTION)
        arrow(axes, (left + 0.5, y + 0.6), (left + 0.5, y + 1.15))
        channels = 'C' if stage == 0 else f'{2**stage}C'
        size = f'{channels} x H/{4 * 2**stage} x W/{4 * 2**stage}'
        axes.text(left + 0.5, y + 1.2, f'norm{stage}', ha='center', va='bottom', fontsize=8)
        axes.text(left + 0.5, y - 0.68, size, ha='center', va='top', fontsize=7.5)
        left += 1.0


def draw_layer(axes: Axes, y: float) -> None:
    """Draws one layer: attention and MLP, each after a norm and with a residual connection."""
    axes.text(0.1, y + 1.0, 'one layer', fontsize=10, weight='bold')
    x = 0.9
    axes.text(0.1, y, 'H x W x C', va='center', fontsize=7.5)
    for names in (('norm', 'neighborhood\nattention'), ('norm', 'MLP')):
        start = x + 0.1
        for name in names:
            arrow(axes, (x, y), (x + 0.3, y))
            width = 0.7 if name == 'norm' else 1.2
            box(axes, x + 0.3, y, width, 0.7, name, LAYER_COLORS[name])
            x += 0.3 + width
        arrow(axes, (x, y), (x + 0.35, y))
        x += 0.45
        axes.add_patch(plt.Circle((x, y), 0.12, fc='w', ec='#444444'))
        axes.text(x, y, '+', ha='center', va='center', fontsize=10)
        axes.plot([start, start, x], [y, y + 0.65, y + 0.65], color='#444444', lw=1.1)
        arrow(axes, (x, y + 0.65), (x, y + 0.12))
        axes.text((start + x) / 2, y + 0.7, 'residual', ha='center', va='bottom', fontsize=7.5)
        x += 0.12
    arrow(axes, (x, y), (x + 0.4, y))


def main(target: Path = TARGET) -> None:
    plt.rcParams['svg.hashsalt'] = 'architecture'  # for reproducible files
    figure, axes = plt.subplots(figsize=(13, 5.6))
    draw_stages(axes, 2.9)
    draw_layer(axes, 0.5)
    axes.set_xlim(0, 10.6)
    axes.set_ylim(-0.1, 4.5)
    axes.set_aspect('equal')
    axes.axis('off')
    figure.savefig(target, bbox_inches='tight', facecolor='white', metadata={'Date': None})


if __name__ == '__main__':
    main()
