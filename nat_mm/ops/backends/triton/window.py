"""Index arithmetic that the kernels share.

Rows and columns are numbered within a residue class of the dilation, in which neighbours are
consecutive: token ``m`` of class ``r`` is at position ``r + dilation * m`` of the map.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)

MAP_SIZES = ('HEIGHT', 'WIDTH', 'HEADS')
"""Arguments for whose values, as multiples of 16, nothing is compiled anew."""


@triton.jit
def locate_tile(
    program,
    HEIGHT,
    WIDTH,
    HEADS,
    DILATION_ROWS: tl.constexpr,
    DILATION_COLUMNS: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    TILE_COLUMNS: tl.constexpr,
):
    """Takes a program's number apart.

    Returns:
        Image, head, class of rows, class of columns, first row and first column of the tile.
    """
    tiles_down = tl.cdiv(tl.cdiv(HEIGHT, DILATION_ROWS), TILE_ROWS)
    tiles_across = tl.cdiv(tl.cdiv(WIDTH, DILATION_COLUMNS), TILE_COLUMNS)
    column = (program % tiles_across) * TILE_COLUMNS
    program = program // tiles_across
    row = (program % tiles_down) * TILE_ROWS
    program = program // tiles_down
    column_class = program % DILATION_COLUMNS
    program = program // DILATION_COLUMNS
    row_class = program % DILATION_ROWS
    program = program // DILATION_ROWS
    return program // HEADS, program % HEADS, row_class, column_class, row, column


@triton.jit
def class_length(LENGTH, residue, DILATION: tl.constexpr):
    """Number of tokens of a residue class on an axis."""
    return (LENGTH - residue + DILATION - 1) // DILATION


@triton.jit
def window_start(index, length, KERNEL: tl.constexpr):
    """First neighbour of a query, or of each of several queries."""
    return tl.minimum(tl.maximum(index - KERNEL // 2, 0), length - KERNEL)


@triton.jit
def keys_of(first, last, length, KERNEL: tl.constexpr):
    """First key, and the one after the last, in the windows of queries ``first`` to ``last``."""
    return window_start(first, length, KERNEL), window_start(last, length, KERNEL) + KERNEL


@triton.jit
def queries_of(first, last, length, KERNEL: tl.constexpr):
    """First query, and the one after the last, whose windows hold keys ``first`` to ``last``.

    Windows are shifted at borders, so the keys near one are seen from up to there.
    """
    start = tl.where(first < KERNEL, 0, first - KERNEL // 2)
    end = tl.where(last >= length - KERNEL, length, last + KERNEL // 2 + 1)
    return start, end


@triton.jit
def block_tokens(
    block, top, left, blocks_across, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr
):
    """Rows and columns of the tokens of a block, of those that fill a rectangle row by row."""
    index = tl.arange(0, BLOCK_ROWS * BLOCK_COLUMNS)
    row = top + block // blocks_across * BLOCK_ROWS + index // BLOCK_COLUMNS
    column = left + block % blocks_across * BLOCK_COLUMNS + index % BLOCK_COLUMNS
    return row, column


@triton.jit
def map_position(
    row,
    column,
    row_class,
    column_class,
    DILATION_ROWS: tl.constexpr,
    DILATION_COLUMNS: tl.constexpr,
):
    """Row and column of the map, as 64-bit integers, of a class's rows and columns."""
    y = row_class + DILATION_ROWS * row
    x = column_class + DILATION_COLUMNS * column
    return y.to(tl.int64), x.to(tl.int64)


@triton.jit
def load_tokens(
    tensor,
    strides,
    image,
    head,
    y,
    x,
    is_token,
    HEAD_DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Channels of tokens, [tokens, CHANNELS], with zeros for what is no token or no channel."""
    channel = tl.arange(0, CHANNELS)
    at = image * strides[0] + head * strides[3] + y * strides[1] + x * strides[2]
    mask = is_token[:, None] & (channel < HEAD_DIM)[None, :]
    return tl.load(tensor + at[:, None] + channel[None, :], mask, other=0.0)


@triton.jit
def store_tokens(
    tensor, token, channels, is_token, HEAD_DIM: tl.constexpr, CHANNELS: tl.constexpr
):
    """Writes the channels of tokens; ``token`` counts in steps of HEAD_DIM."""
    channel = tl.arange(0, CHANNELS)
    mask = is_token[:, None] & (channel < HEAD_DIM)[None, :]
    at = token[:, None] * HEAD_DIM + channel[None, :]
    tl.store(tensor + at, channels.to(tensor.dtype.element_ty), mask)


@triton.jit
def scores_of(
    products,
    bias,
    head,
    query_row,
    query_column,
    key_row,
    key_column,
    is_token,
    rows,
    columns,
    SCALE,
    HAS_BIAS: tl.constexpr,
    KERNEL_ROWS: tl.constexpr,
    KERNEL_COLUMNS: tl.constexpr,
):
    """Scores in powers of 2 from products of queries and keys; -inf where not in the window.

    The positions have shapes that broadcast to that of ``products``, and so has ``is_token``,
    which tells whether both query and key exist.
    """
    row = key_row - window_start(query_row, rows, KERNEL_ROWS)
    column = key_column - window_start(query_column, columns, KERNEL_COLUMNS)
    is_seen = (row >= 0) & (row < KERNEL_ROWS) & (column >= 0) & (column < KERNEL_COLUMNS)
    is_seen = is_seen & is_token
    scores = products * (SCALE * LOG2_E)
    if HAS_BIAS:
        row = key_row - query_row + KERNEL_ROWS - 1 + head * (2 * KERNEL_ROWS - 1)
        column = key_column - query_column + KERNEL_COLUMNS - 1
        at = row * (2 * KERNEL_COLUMNS - 1) + column
        scores += tl.load(bias + at, is_seen, other=0.0) * LOG2_E
    return tl.where(is_seen, scores, float('-inf'))
