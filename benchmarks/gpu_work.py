"""The work of neighborhood attention on a GPU, counted tile by tile: operations and bytes.

Counted are the kernels of the backend ``triton``, NATTEN's with the bias folded in, and PyTorch's
flex attention, with kernel size 7 and a bias, in 16 bits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from benchmarks.settings import KERNEL_SIZE, StageMap
from nat_mm.ops.backends.natten import WIDTH_MULTIPLE
from nat_mm.ops.backends.triton.tiles import Tiles, choose_tiles, product_size
from nat_mm.ops.window import axis_window

BYTES = 2
"""Of a number in bfloat16 or float16; what is kept per query besides is float32."""
FLEX_BLOCK = 128
NATTEN_TILES = Tiles(8, 8, 8, 8, warps=4, stages=2)
"""NATTEN 0.21's default for two axes; ``warps`` and ``stages`` are not counted with."""
PRODUCTS = {'forward': 2, 'queries': 3, 'keys': 4}
"""Matrix products of tile and block in each kernel of the backend ``triton``."""


class Work(NamedTuple):
    """What one pass does.

    Attributes:
        flops: Of matrix products, a multiplication and an addition counted as two.
        requested: Bytes that programs read and write, what several of them read counted as often.
        transferred: Bytes, each tensor counted once for every kernel that reads or writes it: what
            memory has to move if the caches serve every further reading.
    """

    flops: int
    requested: int
    transferred: int

    def __add__(self, other: Work) -> Work:
        return Work(*(mine + its for mine, its in zip(self, other, strict=True)))


class AxisCount(NamedTuple):
    """Sums over all tiles of all residue classes of one axis; those of a map are products of two.

    Attributes:
        tiles: Tiles with a token in them.
        tokens: Tokens in the tiles.
        around: Tokens that the tiles are to be multiplied with.
        blocks: Blocks that cover these.
    """

    tiles: int
    tokens: int
    around: int
    blocks: int


def count_axis(
    length: int, kernel_size: int, dilation: int, *, tile: int, block: int, owns: str
) -> AxisCount:
    """Goes through the tiles of an axis as the kernels do.

    Args:
        length: Tokens on the axis.
        kernel_size: Window size.
        dilation: Distance between neighbors.
        tile: Tokens of a tile.
        block: Tokens of a block.
        owns: Whether tiles are of 'queries', met by keys, or of 'keys', met by queries.
    """
    total = np.zeros(4, np.int64)
    for residue in range(dilation):
        members = (length - residue + dilation - 1) // dilation
        for first in range(0, members, tile):
            last = min(first + tile, members) - 1
            if owns == 'queries':
                start = _window_start(first, members, kernel_size)
                end = _window_start(last, members, kernel_size) + kernel_size
            else:
                start = 0 if first < kernel_size else first - kernel_size // 2
                near_end = last >= members - kernel_size
                end = members if near_end else last + kernel_size // 2 + 1
            total += 1, last + 1 - first, end - start, math.ceil((end - start) / block)
    return AxisCount(*map(int, total))


def count_map(
    stage: StageMap,
    tiles: Tiles,
    *,
    owns: str,
    kernel_size: tuple[int, int] = (KERNEL_SIZE, KERNEL_SIZE),
    dilation: tuple[int, int] = (1, 1),
) -> AxisCount:
    """Sums over all tiles of all heads of one image."""
    rows, columns = (
        count_axis(length, window, step, tile=tile, block=block, owns=owns)
        for length, window, step, tile, block in zip(
            (stage.height, stage.width), kernel_size, dilation, tiles[:2], tiles[2:4], strict=True
        )
    )
    return AxisCount(*(stage.heads * a * b for a, b in zip(rows, columns, strict=True)))


def default_tiles(kernel: str, stage: StageMap) -> Tiles:
    """Tiles of the backend ``triton`` on NVIDIA's GPUs, in 16 bits."""
    return choose_tiles(
        kernel,
        kernel_size=(KERNEL_SIZE, KERNEL_SIZE),
        head_dim=stage.head_dim,
        bytes_per_element=BYTES,
        is_amd=False,
    )


def triton_kernel(kernel: str, stage: StageMap) -> Work:
    """One kernel of the backend ``triton``, with a bias; ``kernel`` is a key of ``PRODUCTS``."""
    tiles = default_tiles(kernel, stage)
    count = count_map(stage, tiles, owns='keys' if kernel == 'keys' else 'queries')
    pairs = tiles.rows * tiles.columns * tiles.block_rows * tiles.block_columns
    flops = count.blocks * pairs * 2 * PRODUCTS[kernel] * product_size(stage.head_dim)
    vector = stage.head_dim * BYTES
    table = 0
    if kernel == 'queries':
        side = product_size(2 * KERNEL_SIZE - 1)
        row_pairs = tiles.rows * tiles.block_rows
        column_pairs = tiles.columns * tiles.block_columns
        flops += 2 * side * column_pairs * (count.blocks * row_pairs + count.tiles * side)
        programs = tiles.programs(1, stage.height, stage.width, stage.heads, (1, 1))
        table = 3 * 4 * side**2 * programs  # zeroed, written, and read again for the sum
    # Vectors and float32 numbers of a token: read and written once, and read by every tile around.
    own_vectors, own_numbers, around_vectors, around_numbers = {
        'forward': (2, 1, 2, 0),  # query, output, log-sum-exp; key, value
        'queries': (4, 2, 2, 0),  # query, output, both gradients, log-sum-exp, delta; key, value
        'keys': (4, 0, 2, 2),  # key, value, gradients; query, gradient, log-sum-exp, delta
    }[kernel]
    read = count.blocks * tiles.block_rows * tiles.block_columns
    own = count.tokens * (own_vectors * vector + own_numbers * 4) + table
    around = around_vectors * vector + around_numbers * 4
    return Work(flops, own + read * around, own + count.tokens * around)


def useful_share(stage: StageMap, tiles: Tiles, count: AxisCount) -> float:
    """Share of the pairs of tokens that the blocks multiply which are neighbors."""
    needed = stage.height * stage.width * stage.heads * KERNEL_SIZE**2
    return needed / (count.blocks * math.prod(tiles[:4]))


def natten(mode: str, stage: StageMap) -> Work:
    """NATTEN's kernels, with the bias folded into query and key, and the making of these.

    Args:
        mode: 'forward' or 'backward'.
        stage: The map.
    """
    wide = stage.head_dim + KERNEL_SIZE**2
    wide += -wide % WIDTH_MULTIPLE
    count = count_map(stage, NATTEN_TILES, owns='queries' if mode == 'forward' else 'keys')
    pairs = math.prod(NATTEN_TILES[:4])
    narrow = stage.head_dim
    if mode == 'forward':
        channels = wide + narrow
        own, around = wide + narrow, wide + narrow  # query, output; key, value
        folding = 2 * (narrow + wide)  # query and key, read and written wider
    else:
        channels = 3 * wide + 2 * narrow
        # Key, value, all gradients, and the output with its gradient for delta; query and gradient.
        own, around = 3 * wide + 4 * narrow, wide + narrow
        folding = wide  # the gradient of queries, read for that of the bias
    flops = count.blocks * pairs * 2 * channels
    fixed = count.tokens * (BYTES * (own + folding) + 4)
    around *= BYTES
    return Work(flops, fixed + count.around * around, fixed + count.tokens * around)


def flex(mode: str, stage: StageMap, *, order: str) -> Work:
    """PyTorch's flex attention with a mask of blocks, without the gradient of the bias.

    Args:
        mode: 'forward' or 'backward', which multiplies 7 times as the backend ``triton`` does.
        stage: The map.
        order: Of the tokens, see :func:`touched_blocks`.
    """
    window = (KERNEL_SIZE, KERNEL_SIZE)
    touched = touched_blocks((stage.height, stage.width), window, order=order) * stage.heads
    products = 2 if mode == 'forward' else 7
    flops = touched * FLEX_BLOCK**2 * 2 * products * stage.head_dim
    vector = stage.head_dim * BYTES
    tokens = stage.height * stage.width * stage.heads
    if mode == 'forward':
        own, around = 2 * vector + 4, 2 * vector
    else:
        own, around = 8 * vector + 2 * 4, 4 * vector + 2 * 4
    requested = tokens * own + touched * FLEX_BLOCK * around
    return Work(flops, requested, tokens * (own + around))


def touched_blocks(
    size: tuple[int, int], kernel_size: tuple[int, int], *, order: str, block: int = FLEX_BLOCK
) -> int:
    """Pairs of a block of queries and one of keys with a neighbor in it, undilated.

    Args:
        size: (H, W).
        kernel_size: (rows, columns).
        order: 'rows' numbers tokens row by row; 'tiles' goes through tiles of 8 rows, each as
            large as a block where the map allows, and row by row in a tile.
        block: Consecutive tokens of a block; the last one may have fewer.
    """
    height, width = size
    number = np.arange(height * width).reshape(size)
    if order == 'tiles':
        tile_rows, tile_columns = 8, block // 8
        y, x = np.divmod(number, width)
        keys = (x, y, x // tile_columns, y // tile_rows)  # the last one counts most
        place = np.lexsort([key.ravel() for key in keys])
        number = np.empty(height * width, np.int64)
        number[place] = np.arange(height * width)
        number = number.reshape(size)
    of_block = number // block
    rows, columns = (
        axis_window(length, window, 1)[0].numpy()
        for length, window in zip(size, kernel_size, strict=True)
    )
    touched = np.zeros((of_block.max() + 1,) * 2, bool)
    for row in rows.T:
        for column in columns.T:
            touched[of_block, of_block[row[:, None], column[None, :]]] = True
    return int(touched.sum())


def least(mode: str, stage: StageMap) -> Work:
    """What any exact way costs: products of pairs in windows, every tensor moved once."""
    tokens = stage.height * stage.width * stage.heads
    products, vectors = {'forward': (2, 4), 'backward': (5, 8)}[mode]
    flops = tokens * KERNEL_SIZE**2 * 2 * products * stage.head_dim
    moved = tokens * (vectors * stage.head_dim * BYTES + 4)
    return Work(flops, moved, moved)


WAYS = {
    'triton': lambda mode, stage: (
        triton_kernel('forward', stage)
        if mode == 'forward'
        else triton_kernel('queries', stage) + triton_kernel('keys', stage)
    ),
    'natten, bias folded': natten,
    'flex, row by row': lambda mode, stage: flex(mode, stage, order='rows'),
    'flex, in tiles': lambda mode, stage: flex(mode, stage, order='tiles'),
}


def _window_start(index: int, length: int, kernel_size: int) -> int:
    return min(max(index - kernel_size // 2, 0), length - kernel_size)
