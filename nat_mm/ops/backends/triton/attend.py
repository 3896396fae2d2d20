"""Forward kernel: a tile of queries against the keys and values around it."""

import triton
import triton.language as tl

from nat_mm.ops.backends.triton.window import (
    LOG2_E,
    MAP_SIZES,
    block_tokens,
    class_length,
    keys_of,
    load_tokens,
    locate_tile,
    map_position,
    scores_of,
    store_tokens,
)


@triton.jit(do_not_specialize=MAP_SIZES)
def attend(
    query,
    key,
    value,
    bias,
    output,
    log_sum_exp,
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
):
    """Softmax over the window of each query, online over blocks of keys.

    One program has one tile of TILE_ROWS x TILE_COLUMNS queries of one residue class, head and
    image. Strides are those of image, row, column and head; channels are consecutive. ``output``
    is contiguous [B, H, W, heads, HEAD_DIM], ``log_sum_exp`` float32 [B, H, W, heads].
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

    query_row, query_column = block_tokens(
        0, first_row, first_column, 1, TILE_ROWS, TILE_COLUMNS
    )
    is_query = (query_row < rows) & (query_column < columns)
    query_y, query_x = map_position(
        query_row, query_column, row_class, column_class, DILATION_ROWS, DILATION_COLUMNS
    )
    q = load_tokens(
        query, query_strides, image, head, query_y, query_x, is_query, HEAD_DIM, CHANNELS
    )

    last_row = tl.minimum(first_row + TILE_ROWS, rows) - 1
    last_column = tl.minimum(first_column + TILE_COLUMNS, columns) - 1
    top, bottom = keys_of(first_row, last_row, rows, KERNEL_ROWS)
    left, right = keys_of(first_column, last_column, columns, KERNEL_COLUMNS)
    blocks_across = tl.cdiv(right - left, BLOCK_COLUMNS)
    blocks = tl.cdiv(bottom - top, BLOCK_ROWS) * blocks_across

    largest = tl.full((TILE_ROWS * TILE_COLUMNS,), -1e30, tl.float32)
    total = tl.zeros((TILE_ROWS * TILE_COLUMNS,), tl.float32)
    sums = tl.zeros((TILE_ROWS * TILE_COLUMNS, CHANNELS), tl.float32)
    for block in range(blocks):
        key_row, key_column = block_tokens(
            block, top, left, blocks_across, BLOCK_ROWS, BLOCK_COLUMNS
        )
        is_key = (key_row < bottom) & (key_column < right)
        key_y, key_x = map_position(
            key_row, key_column, row_class, column_class, DILATION_ROWS, DILATION_COLUMNS
        )
        k = load_tokens(key, key_strides, image, head, key_y, key_x, is_key, HEAD_DIM, CHANNELS)
        scores = scores_of(
            tl.dot(q, tl.trans(k), input_precision=PRECISION),
            bias,
            head,
            query_row[:, None],
            query_column[:, None],
            key_row[None, :],
            key_column[None, :],
            is_query[:, None] & is_key[None, :],
            rows,
            columns,
            SCALE,
            HAS_BIAS,
            KERNEL_ROWS,
            KERNEL_COLUMNS,
        )
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp2(scores - new_largest[:, None])
        shrink = tl.exp2(largest - new_largest)
        largest = new_largest
        total = total * shrink + tl.sum(weights, 1)
        v = load_tokens(
            value, value_strides, image, head, key_y, key_x, is_key, HEAD_DIM, CHANNELS
        )
        sums = tl.dot(weights.to(v.dtype), v, sums * shrink[:, None], input_precision=PRECISION)

    token = ((image * HEIGHT + query_y) * WIDTH + query_x) * HEADS + head
    tl.store(log_sum_exp + token, (largest + tl.log2(total)) / LOG2_E, is_query)
    store_tokens(output, token, sums / total[:, None], is_query, HEAD_DIM, CHANNELS)
