"""Draws docs/window.png: 7 x 7 windows inside a map and at its borders, with and without dilation.

python docs/window.py
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nat_mm.ops.window import axis_window

TARGET = Path(__file__).with_name('window.png')
HEIGHT, WIDTH, KERNEL_SIZE = 16, 18, 7
TOKENS = {'inside': (8, 9), 'at a border': (8, 1), 'in a corner': (14, 15)}
DILATIONS = (1, 2)
NEIGHBOR, TOKEN, MAP, CENTERED = '#f6d186', '#c0392b', '#f7f7f7', '#2c3e50'


def neighbors(token: tuple[int, int], dilation: int) -> list[tuple[int, int]]:
    """Returns (row, column) of the tokens that a token attends to."""
    rows, columns = (
        axis_window(length, KERNEL_SIZE, dilation)[0][position].tolist()
        for length, position in zip((HEIGHT, WIDTH), token, strict=True)
    )
    return [(row, column) for row in rows for column in columns]


def draw_map(axes: Axes, token: tuple[int, int], dilation: int) -> None:
    """Draws the tokens of a map as cells, and a centered window as a dashed line."""
    # Values are indices of MAP, NEIGHBOR and TOKEN in the color map.
    cells = np.zeros((HEIGHT, WIDTH))
    cells[tuple(zip(*neighbors(token, dilation), strict=True))] = 1
    cells[token] = 2
    colors = ListedColormap([MAP, NEIGHBOR, TOKEN])
    axes.pcolormesh(cells, cmap=colors, vmin=0, vmax=2, edgecolors='#999999', linewidth=0.6)
    reach = KERNEL_SIZE // 2 * dilation
    corner = (token[1] - reach, token[0] - reach)
    side = 2 * reach + 1
    axes.add_patch(Rectangle(corner, side, side, fill=False, ec=CENTERED, lw=1.3, ls='--'))
    axes.set(xlim=(-5.5, WIDTH + 4.5), ylim=(HEIGHT + 5.5, -0.4), aspect='equal')
    axes.set_axis_off()


def main(target: Path = TARGET) -> None:
    # Large letters in a narrow figure are legible on a phone.
    figure = Figure(figsize=(7.2, 10.6), layout='constrained')
    rows = figure.subplots(len(TOKENS), len(DILATIONS))
    for row, (place, token) in zip(rows, TOKENS.items(), strict=True):
        for axes, dilation in zip(row, DILATIONS, strict=True):
            draw_map(axes, token, dilation)
            axes.set_title(f'{place}, dilation {dilation}', fontsize=15)
    handles = [
        Rectangle((0, 0), 1, 1, fc=TOKEN, ec='#999999'),
        Rectangle((0, 0), 1, 1, fc=NEIGHBOR, ec='#999999'),
        Rectangle((0, 0), 1, 1, fill=False, ec=CENTERED, ls='--'),
    ]
    texts = [
        'a token',
        f'the {KERNEL_SIZE} x {KERNEL_SIZE} tokens that it attends to',
        'a window centered on it',
    ]
    figure.legend(handles, texts, loc='outside lower center', frameon=False, fontsize=15)
    figure.savefig(target, dpi=100)


if __name__ == '__main__':
    main()
