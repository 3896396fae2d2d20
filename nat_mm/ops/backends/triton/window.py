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
    """Row and column of the map of a class's rows and columns."""
    return row_class + DILATION_ROWS * row, column_class + DILATION_COLUMNS * column


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
    """Channels of tokens, [tokens, CHANNELS], with zeros for what is no token or no channel.

    ``image`` has 64 bits. Within an image 32 are enough: see unsupported_reasons().
    """
    channel = tl.arange(0, CHANNELS)
    at = image * strides[0] + head * strides[3] + y * strides[1] + x * strides[2]
    mask = is_token[:, None] & (channel < HEAD_DIM)[None, :]
    return tl.load(tensor + at[:, None] + channel[None, :], mask, other=0.0)


@triton.jit
def store_tokens(tensor, token, channels, is_token, HEAD_DIM: tl.constexpr, CHANNELS: tl.constexpr):
    """Writes the channels of tokens; ``token`` counts in steps of HEAD_DIM."""
    channel = tl.arange(0, CHANNELS)
    mask = is_token[:, None] & (channel < HEAD_DIM)[None, :]
    at = token[:, None] * HEAD_DIM + channel[None, :]
    tl.store(tensor + at, channels.to(tensor.dtype.element_ty), mask)


@triton.jit
def load_near(tensor, at, CHANNELS_HERE: tl.constexpr, CHANNELS: tl.constexpr):
    """Channels of tokens that all exist, [tokens, CHANNELS], with zeros for what is no channel."""
    channel = tl.arange(0, CHANNELS)
    if CHANNELS_HERE == CHANNELS:
        return tl.load(tensor + (at[:, None] + channel[None, :]))
    mask = (channel < CHANNELS_HERE)[None, :] & (at >= 0)[:, None]
    return tl.load(tensor + (at[:, None] + channel[None, :]), mask, other=0.0)


@triton.jit
def axis_entries(query, key, is_pair, length, KERNEL: tl.constexpr, STEP: tl.constexpr):
    """What an axis adds to the place in the bias table; far beyond its end outside the window."""
    place = key - window_start(query, length, KERNEL)
    seen = (place >= 0) & (place < KERNEL) & is_pair
    return tl.where(seen, (key - query + KERNEL - 1) * STEP, 1 << 20)


@triton.jit
def fetch(pointers, DIRECT: tl.constexpr):
    """Loads float32. DIRECT keeps Triton from taking them through shared memory, on NVIDIA only."""
    if DIRECT:
        return tl.inline_asm_elementwise(
            'ld.global.nc.f32 $0, [$1];',
            '=f,l',
            [pointers.to(tl.int64)],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )
    return tl.load(pointers)


@triton.jit
def biases_of(
    table,
    row_entries,
    column_entries,
    HAS_BIAS: tl.constexpr,
    ENTRIES: tl.constexpr,
    DIRECT: tl.constexpr,
):
    """Bias of each pair, -inf outside the window, [own tokens, tokens of the block].

    Args:
        table: ENTRIES biases of the head, and -inf.
        row_entries: [own rows, rows of the block].
        column_entries: [own columns, columns of the block].
    """
    at = row_entries[:, None, :, None] + column_entries[None, :, None, :]
    own: tl.constexpr = row_entries.shape[0] * column_entries.shape[0]
    around: tl.constexpr = row_entries.shape[1] * column_entries.shape[1]
    at = tl.reshape(at, (own, around))
    if HAS_BIAS:
        return fetch(table + tl.minimum(at, ENTRIES), DIRECT)
    return tl.where(at < ENTRIES, 0.0, float('-inf'))
