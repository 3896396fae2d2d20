"""Index arithmetic that the kernels share.

Rows and columns are numbered within a residue class of the dilation, in which neighbours are
consecutive: token ``m`` of class ``r`` is at position ``r + dilation * m`` of the map.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


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
def first_attending_query(index, KERNEL: tl.constexpr):
    """First query whose window holds the key ``index``."""
    return tl.where(index < KERNEL, 0, index - KERNEL // 2)


@triton.jit
def last_attending_query(index, length, KERNEL: tl.constexpr):
    """Last query whose window holds the key ``index``."""
    return tl.where(index >= length - KERNEL, length - 1, index + KERNEL // 2)


@triton.jit
def is_neighbor(
    query_row,
    query_column,
    key_row,
    key_column,
    rows,
    columns,
    KERNEL_ROWS: tl.constexpr,
    KERNEL_COLUMNS: tl.constexpr,
):
    """Whether the key is in the query's window, for positions that broadcast."""
    row = key_row - window_start(query_row, rows, KERNEL_ROWS)
    column = key_column - window_start(query_column, columns, KERNEL_COLUMNS)
    return (row >= 0) & (row < KERNEL_ROWS) & (column >= 0) & (column < KERNEL_COLUMNS)


@triton.jit
def bias_offset(
    query_row,
    query_column,
    key_row,
    key_column,
    KERNEL_ROWS: tl.constexpr,
    KERNEL_COLUMNS: tl.constexpr,
):
    """Where a head's bias table has the entry of a query and a key."""
    row = key_row - query_row + KERNEL_ROWS - 1
    column = key_column - query_column + KERNEL_COLUMNS - 1
    return row * (2 * KERNEL_COLUMNS - 1) + column


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
def strided_offset(strides, image, head, y, x):
    """Offset of each token's first channel, for the strides of image, row, column and head."""
    return image * strides[0] + head * strides[3] + y * strides[1] + x * strides[2]
