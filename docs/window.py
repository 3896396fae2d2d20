"""Draws docs/window.png: windows of 7 x 7 inside of a map and at its borders, dilated and not.

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
NEIGHBOUR, TOKEN, MAP, CENTRED = '#f6d186', '#c0392b', '#f7f7f7', '#2c3e50'


def neighbours(token: tuple[int, int], dilation: int) -> list[tuple[int, int]]:
    """(row, column) of what a token attends to, as the operator has it."""
    rows, columns = (
        axis_window(length, KERNEL_SIZE, dilation)[0][position].tolist()
        for length, position in zip((HEIGHT, WIDTH), token, strict=True)
    )
    return [(row, column) for row in rows for column in columns]


def draw_map(axes: Axes, token: tuple[int, int], dilation: int) -> None:
    """The tokens of a map as cells, and with a dashed line where a centred window would be."""
    # Numbers of the colours of MAP, NEIGHBOUR and TOKEN.
    cells = np.zeros((HEIGHT, WIDTH))
    cells[tuple(zip(*neighbours(token, dilation), strict=True))] = 1
    cells[token] = 2
    colors = ListedColormap([MAP, NEIGHBOUR, TOKEN])
    axes.pcolormesh(cells, cmap=colors, vmin=0, vmax=2, edgecolors='#999999', linewidth=0.6)
    reach = KERNEL_SIZE // 2 * dilation
    corner = (token[1] - reach, token[0] - reach)
    side = 2 * reach + 1
    axes.add_patch(Rectangle(corner, side, side, fill=False, ec=CENTRED, lw=1.3, ls='--'))
    axes.set(xlim=(-5.5, WIDTH + 4.5), ylim=(HEIGHT + 5.5, -0.4), aspect='equal')
    axes.set_axis_off()


def main(target: Path = TARGET) -> None:
    figure = Figure(figsize=(10.5, 6.6), layout='constrained')
    rows = figure.subplots(len(DILATIONS), len(TOKENS))
    for row, dilation in zip(rows, DILATIONS, strict=True):
        for axes, (place, token) in zip(row, TOKENS.items(), strict=True):
            draw_map(axes, token, dilation)
            axes.set_title(f'{place}, dilation {dilation}', fontsize=11)
    handles = [
        Rectangle((0, 0), 1, 1, fc=TOKEN, ec='#999999'),
        Rectangle((0, 0), 1, 1, fc=NEIGHBOUR, ec='#999999'),
        Rectangle((0, 0), 1, 1, fill=False, ec=CENTRED, ls='--'),
    ]
    texts = [
        'a token',
        f'what it attends to, {KERNEL_SIZE} x {KERNEL_SIZE} tokens, itself among them',
        'a window centred on it',
    ]
    figure.legend(handles, texts, loc='outside lower center', ncols=3, frameon=False)
    figure.savefig(target, dpi=120)


if __name__ == '__main__':
    main()
