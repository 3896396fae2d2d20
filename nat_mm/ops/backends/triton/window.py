"""Functions that the kernels share: map positions, loads and stores, and biases of pairs.

Rows and columns are numbered within a residue class of the dilation, in which neighbors are
consecutive: token ``m`` of class ``r`` is at position ``r + dilation * m`` of the map.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)

MAP_SIZES = ('IMAGES', 'HEIGHT', 'WIDTH', 'HEADS')
"""Arguments that Triton must not specialize on, so that multiples of 16 need no recompilation."""


@triton.jit
def locate_tile(
    HEIGHT,
    WIDTH,
    HEADS,
    DILATION_ROWS: tl.constexpr,
    DILATION_COLUMNS: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    TILE_COLUMNS: tl.constexpr,
):
    """Locates the tile of this program.

    Returns:
        Image (64 bits), head, residue classes of rows and columns, number of rows and columns in
        these classes, first row and first column of the tile. The latter may lie beyond the end of
        a class that is smaller than others.
    """
    program = tl.program_id(0)
    tiles_down = tl.cdiv(tl.cdiv(HEIGHT, DILATION_ROWS), TILE_ROWS)
    tiles_across = tl.cdiv(tl.cdiv(WIDTH, DILATION_COLUMNS), TILE_COLUMNS)
    first_column = (program % tiles_across) * TILE_COLUMNS
    program = program // tiles_across
    first_row = (program % tiles_down) * TILE_ROWS
    program = program // tiles_down
    column_class = program % DILATION_COLUMNS
    program = program // DILATION_COLUMNS
    row_class = program % DILATION_ROWS
    program = program // DILATION_ROWS
    rows = (HEIGHT - row_class + DILATION_ROWS - 1) // DILATION_ROWS
    columns = (WIDTH - column_class + DILATION_COLUMNS - 1) // DILATION_COLUMNS
    image = (program // HEADS).to(tl.int64)
    return image, program % HEADS, row_class, column_class, rows, columns, first_row, first_column


@triton.jit
def tokens_of(
    first_row,
    first_column,
    rows,
    columns,
    row_class,
    column_class,
    DILATION_ROWS: tl.constexpr,
    DILATION_COLUMNS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Returns map row, map column and existence of a rectangle's tokens, row by row.

    Tokens beyond the residue class get the coordinates of its last row or column.
    """
    index = tl.arange(0, ROWS * COLUMNS)
    row = first_row + index // COLUMNS
    column = first_column + index % COLUMNS
    y = row_class + DILATION_ROWS * tl.minimum(row, rows - 1)
    x = column_class + DILATION_COLUMNS * tl.minimum(column, columns - 1)
    return y, x, (row < rows) & (column < columns)


@triton.jit
def window_start(index, length, KERNEL: tl.constexpr):
    """Returns the first neighbor of each query."""
    return tl.minimum(tl.maximum(index - KERNEL // 2, 0), length - KERNEL)


@triton.jit
def span_around(
    first,
    length,
    KERNEL: tl.constexpr,
    TILE: tl.constexpr,
    OWNS_QUERIES: tl.constexpr,
    INTERIOR: tl.constexpr,
):
    """Returns the range of tokens that a tile meets along an axis, with an exclusive end.

    A tile of queries meets the keys in their windows; a tile of keys meets the queries whose
    windows contain them. Windows are shifted at borders, so keys near a border meet all queries up
    to it.
    """
    if INTERIOR:
        return first - KERNEL // 2, first + (TILE + KERNEL // 2)
    last = tl.minimum(first + TILE, length) - 1
    if OWNS_QUERIES:
        return window_start(first, length, KERNEL), window_start(last, length, KERNEL) + KERNEL
    start = tl.where(first < KERNEL, 0, first - KERNEL // 2)
    end = tl.where(last >= length - KERNEL, length, last + KERNEL // 2 + 1)
    return start, end


@triton.jit
def lies_inside(
    first,
    length,
    KERNEL: tl.constexpr,
    TILE: tl.constexpr,
    MET: tl.constexpr,
    OWNS_QUERIES: tl.constexpr,
):
    """Returns whether a tile is full on an axis, meets no shifted window, and MET tokens exist."""
    # Shifted windows contain the first or the last KERNEL tokens.
    margin: tl.constexpr = KERNEL // 2 if OWNS_QUERIES else KERNEL
    start = first - KERNEL // 2
    return (first >= margin) & (first + TILE + margin <= length) & (start + MET <= length)


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
    """Loads the channels of tokens, [tokens, CHANNELS], with zeros for missing tokens and channels.

    ``image`` has 64 bits. Within an image, 32 bits suffice: see unsupported_reasons().
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
def load_block(tensor, strides, y, x, HEAD_DIM: tl.constexpr, CHANNELS: tl.constexpr):
    """Loads the channels of existing tokens, [tokens, CHANNELS], with zeros for missing channels.

    ``tensor`` points to the first token of the image and head.
    """
    channel = tl.arange(0, CHANNELS)
    pointers = tensor + ((y * strides[1] + x * strides[2])[:, None] + channel[None, :])
    if HEAD_DIM == CHANNELS:
        return tl.load(pointers)
    mask = (channel < HEAD_DIM)[None, :] & (x >= 0)[:, None]
    return tl.load(pointers, mask, other=0.0)


@triton.jit
def load_numbers(first, second, third, token):
    """Loads a float32 per token from each of three tensors.

    All are loaded at once, which is enough work for every thread to have its own share: one number
    each with 32 tokens and 4 warps. In smaller loads, Triton makes each thread load everything it
    needs, duplicating the loads of others.
    """
    place = tl.arange(0, 4)[:, None]
    at = token[None, :] + place * 0
    pointers = tl.where(place == 0, first + at, tl.where(place == 1, second + at, third + at))
    numbers = tl.load(pointers, (place < 3) & (at >= 0), other=0.0)
    firsts_and_thirds, seconds_and_zeros = tl.split(
        tl.reshape(tl.trans(numbers), (token.shape[0], 2, 2))
    )
    firsts, thirds = tl.split(firsts_and_thirds)
    seconds, _ = tl.split(seconds_and_zeros)
    return firsts, seconds, thirds


@triton.jit
def bias_table(
    bias,
    head,
    HAS_BIAS: tl.constexpr,
    KERNEL_ROWS: tl.constexpr,
    KERNEL_COLUMNS: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    TILE_COLUMNS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    ENTRIES: tl.constexpr,
    OWNS_QUERIES: tl.constexpr,
    INTERIOR: tl.constexpr,
):
    """Returns a head's biases times log2(e) for pair_biases() to pick from, [ENTRIES].

    At a border, this is ``bias`` itself, followed by -inf. Inside, where no window is shifted, the
    bias of a pair depends only on its distance: there is an entry for each distance between tokens
    of the tile and its blocks, which is -inf beyond half a window.
    """
    index = tl.arange(0, ENTRIES)
    if INTERIOR:
        width: tl.constexpr = BLOCK_COLUMNS + TILE_COLUMNS - 1
        row = index // width - (TILE_ROWS - 1)
        column = index % width - (TILE_COLUMNS - 1)
        is_entry = (row >= 0) & (row < KERNEL_ROWS) & (column >= 0) & (column < KERNEL_COLUMNS)
        if not OWNS_QUERIES:
            row = KERNEL_ROWS - 1 - row
            column = KERNEL_COLUMNS - 1 - column
        index = (row + KERNEL_ROWS // 2) * (2 * KERNEL_COLUMNS - 1) + column + KERNEL_COLUMNS // 2
    else:
        is_entry = index < (2 * KERNEL_ROWS - 1) * (2 * KERNEL_COLUMNS - 1)
    if HAS_BIAS:
        table = bias + head * ((2 * KERNEL_ROWS - 1) * (2 * KERNEL_COLUMNS - 1))
        entries = tl.load(table + index, is_entry, other=float('-inf')).to(tl.float32)
        return entries * LOG2_E
    return tl.where(is_entry, 0.0, float('-inf'))


@triton.jit
def axis_entries(
    first,
    block_first,
    length,
    KERNEL: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
    OWNS_QUERIES: tl.constexpr,
    INTERIOR: tl.constexpr,
):
    """Returns what an axis adds to the index of pairs in bias_table(), [TILE, BLOCK].

    At borders, pairs that are not neighbors get an index far beyond the table's end; inside, the
    table itself excludes them.
    """
    own = first + tl.arange(0, TILE)[:, None]
    other = block_first + tl.arange(0, BLOCK)[None, :]
    if INTERIOR:
        return (other - own + KERNEL // 2 + TILE - 1) * STEP
    if OWNS_QUERIES:
        query, key = own, other
    else:
        query, key = other, own
    place = key - window_start(query, length, KERNEL)
    seen = (place >= 0) & (place < KERNEL) & (query < length)
    return tl.where(seen, (key - query + KERNEL - 1) * STEP, 1 << 20)


@triton.jit
def pair_biases(table, row_entries, column_entries, LAST: tl.constexpr, INTERIOR: tl.constexpr):
    """Returns the bias of each pair, -inf unless neighbors, [tile tokens, block tokens].

    Args:
        table: Result of bias_table().
        row_entries: Result of axis_entries() for rows.
        column_entries: Result of axis_entries() for columns.
        LAST: Index of a -inf entry in a border's table, used for all indices beyond it.
        INTERIOR: Whether the table is that of a tile inside the map.
    """
    own: tl.constexpr = row_entries.shape[0] * column_entries.shape[0]
    around: tl.constexpr = row_entries.shape[1] * column_entries.shape[1]
    at = row_entries[:, None, :, None] + column_entries[None, :, None, :]
    at = tl.reshape(at, (own * around,))
    if not INTERIOR:
        at = tl.minimum(at, LAST)
    return tl.reshape(tl.gather(table, at, 0), (own, around))
