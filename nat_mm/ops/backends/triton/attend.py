"""Forward kernel: a tile of queries against the keys and values around it."""

import triton
import triton.language as tl

from nat_mm.ops.backends.triton.window import (
    LOG2_E,
    MAP_SIZES,
    axis_entries,
    biases_of,
    block_tokens,
    class_length,
    keys_of,
    load_near,
    load_tokens,
    locate_tile,
    map_position,
    store_tokens,
    window_start,
)


@triton.jit(do_not_specialize=MAP_SIZES)
def na2d_fwd_kernel(
    query,
    key,
    value,
    bias,
    output,
    log_sum_exp,
    remainder,
    query_strides,
    key_strides,
    value_strides,
    HEIGHT,
    WIDTH,
    HEADS,
    SCALE,
    HEAD_DIM: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    KERNEL_ROWS: tl.constexpr,
    KERNEL_COLUMNS: tl.constexpr,
    DILATION_ROWS: tl.constexpr,
    DILATION_COLUMNS: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    TILE_COLUMNS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr,
    DIRECT: tl.constexpr,
):
    """Softmax over the window of each query, online over blocks of keys.

    One program has one tile of TILE_ROWS x TILE_COLUMNS queries of one residue class, head and
    image. Strides are those of image, row, column and head; channels are consecutive. ``output``
    is contiguous [B, H, W, heads, HEAD_DIM]. ``log_sum_exp``, in powers of 2, and ``remainder``,
    by which it was rounded, are float32 [B, H, W, heads].
    """
    image, head, row_class, column_class, first_row, first_column = locate_tile(
        tl.program_id(0),
        HEIGHT,
        WIDTH,
        HEADS,
        DILATION_ROWS,
        DILATION_COLUMNS,
        TILE_ROWS,
        TILE_COLUMNS,
    )
    rows = class_length(HEIGHT, row_class, DILATION_ROWS)
    columns = class_length(WIDTH, column_class, DILATION_COLUMNS)
    if (first_row >= rows) | (first_column >= columns):
        return
    image = image.to(tl.int64)

    query_row, query_column = block_tokens(0, first_row, first_column, 1, TILE_ROWS, TILE_COLUMNS)
    is_query = (query_row < rows) & (query_column < columns)
    query_y, query_x = map_position(
        query_row, query_column, row_class, column_class, DILATION_ROWS, DILATION_COLUMNS
    )
    q = load_tokens(
        query, query_strides, image, head, query_y, query_x, is_query, HEAD_DIM, CHANNELS
    )

    last_row = tl.minimum(first_row + TILE_ROWS, rows) - 1
    top, bottom = keys_of(first_row, last_row, rows, KERNEL_ROWS)
    left = window_start(first_column, columns, KERNEL_COLUMNS)
    tl.static_assert(TILE_COLUMNS + KERNEL_COLUMNS - 1 <= BLOCK_COLUMNS)

    factor = SCALE * LOG2_E
    number: tl.constexpr = (2 * KERNEL_ROWS - 1) * (2 * KERNEL_COLUMNS - 1)
    table = bias
    if HAS_BIAS:
        table = bias + head * (number + 1)
    own_row = first_row + tl.arange(0, TILE_ROWS)[:, None]
    own_column = first_column + tl.arange(0, TILE_COLUMNS)[:, None]
    around_column = left + tl.arange(0, BLOCK_COLUMNS)[None, :]
    column_entries = axis_entries(own_column, around_column, True, columns, KERNEL_COLUMNS, 1)
    block_row, key_column = block_tokens(0, top, left, 1, BLOCK_ROWS, BLOCK_COLUMNS)
    # Beyond the map the last row and column come again, masked.
    key_x = column_class + DILATION_COLUMNS * tl.minimum(key_column, columns - 1)
    near_keys = image * key_strides[0] + head * key_strides[3] + key_x * key_strides[2]
    near_values = image * value_strides[0] + head * value_strides[3] + key_x * value_strides[2]

    largest = tl.full((TILE_ROWS * TILE_COLUMNS,), -1e30, tl.float32)
    total = tl.zeros((TILE_ROWS * TILE_COLUMNS,), tl.float32)
    sums = tl.zeros((TILE_ROWS * TILE_COLUMNS, CHANNELS), tl.float32)
    for block_top in range(top, bottom, BLOCK_ROWS):
        here = tl.minimum(block_row + (block_top - top), rows - 1)
        key_y = row_class + DILATION_ROWS * here
        k = load_near(key, near_keys + key_y * key_strides[1], HEAD_DIM, CHANNELS)
        products = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        around_row = block_top + tl.arange(0, BLOCK_ROWS)[None, :]
        row_entries = axis_entries(
            own_row, around_row, True, rows, KERNEL_ROWS, 2 * KERNEL_COLUMNS - 1
        )
        biases = biases_of(table, row_entries, column_entries, HAS_BIAS, number, DIRECT)
        scores = products * factor + biases
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp2(scores - new_largest[:, None])
        shrink = tl.exp2(largest - new_largest)
        largest = new_largest
        total = total * shrink + tl.sum(weights, 1)
        v = load_near(value, near_values + key_y * value_strides[1], HEAD_DIM, CHANNELS)
        sums = tl.dot(weights.to(v.dtype), v, sums * shrink[:, None], input_precision=PRECISION)

    token = (image * HEIGHT * WIDTH + (query_y * WIDTH + query_x)) * HEADS + head
    log_total = tl.log2(total)
    rounded = largest + log_total
    tl.store(log_sum_exp + token, rounded, is_query)
    tl.store(remainder + token, (largest - rounded) + log_total, is_query)
    store_tokens(output, token, sums / total[:, None], is_query, HEAD_DIM, CHANNELS)
