"""Forward kernel: a tile of queries against the keys and values around it."""

import triton
import triton.language as tl

from nat_mm.ops.backends.triton.window import (
    LOG2_E,
    bias_offset,
    class_length,
    is_neighbor,
    locate_tile,
    map_position,
    strided_offset,
    window_start,
)


@triton.jit
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
    channel = tl.arange(0, CHANNELS)

    index = tl.arange(0, TILE_ROWS * TILE_COLUMNS)
    query_row = first_row + index // TILE_COLUMNS
    query_column = first_column + index % TILE_COLUMNS
    is_query = (query_row < rows) & (query_column < columns)
    query_y, query_x = map_position(
        query_row, query_column, row_class, column_class, DILATION_ROWS, DILATION_COLUMNS
    )
    query_mask = is_query[:, None] & (channel < HEAD_DIM)[None, :]
    at = strided_offset(query_strides, image, head, query_y, query_x)
    q = tl.load(query + at[:, None] + channel[None, :], query_mask, other=0.0)

    top = window_start(first_row, rows, KERNEL_ROWS)
    left = window_start(first_column, columns, KERNEL_COLUMNS)
    last_row = tl.minimum(first_row + TILE_ROWS, rows) - 1
    last_column = tl.minimum(first_column + TILE_COLUMNS, columns) - 1
    bottom = window_start(last_row, rows, KERNEL_ROWS) + KERNEL_ROWS
    right = window_start(last_column, columns, KERNEL_COLUMNS) + KERNEL_COLUMNS
    blocks_across = tl.cdiv(right - left, BLOCK_COLUMNS)
    blocks = tl.cdiv(bottom - top, BLOCK_ROWS) * blocks_across

    key_index = tl.arange(0, BLOCK_ROWS * BLOCK_COLUMNS)
    largest = tl.full((TILE_ROWS * TILE_COLUMNS,), -1e30, tl.float32)
    total = tl.zeros((TILE_ROWS * TILE_COLUMNS,), tl.float32)
    sums = tl.zeros((TILE_ROWS * TILE_COLUMNS, CHANNELS), tl.float32)
    for block in range(blocks):
        key_row = top + block // blocks_across * BLOCK_ROWS + key_index // BLOCK_COLUMNS
        key_column = left + block % blocks_across * BLOCK_COLUMNS + key_index % BLOCK_COLUMNS
        key_y, key_x = map_position(
            key_row, key_column, row_class, column_class, DILATION_ROWS, DILATION_COLUMNS
        )
        is_key = (key_row < bottom) & (key_column < right)
        key_mask = is_key[:, None] & (channel < HEAD_DIM)[None, :]
        key_at = strided_offset(key_strides, image, head, key_y, key_x)
        k = tl.load(key + key_at[:, None] + channel[None, :], key_mask, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (SCALE * LOG2_E)
        is_seen = is_neighbor(
            query_row[:, None],
            query_column[:, None],
            key_row[None, :],
            key_column[None, :],
            rows,
            columns,
            KERNEL_ROWS,
            KERNEL_COLUMNS,
        )
        if HAS_BIAS:
            entry = bias_offset(
                query_row[:, None],
                query_column[:, None],
                key_row[None, :],
                key_column[None, :],
                KERNEL_ROWS,
                KERNEL_COLUMNS,
            )
            entry += head * (2 * KERNEL_ROWS - 1) * (2 * KERNEL_COLUMNS - 1)
            scores += tl.load(bias + entry, is_seen & is_query[:, None], other=0.0) * LOG2_E
        scores = tl.where(is_seen, scores, float('-inf'))
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp2(scores - new_largest[:, None])
        shrink = tl.exp2(largest - new_largest)
        largest = new_largest
        total = total * shrink + tl.sum(weights, 1)
        value_at = strided_offset(value_strides, image, head, key_y, key_x)
        v = tl.load(value + value_at[:, None] + channel[None, :], key_mask, other=0.0)
        sums = tl.dot(weights.to(v.dtype), v, sums * shrink[:, None], input_precision=PRECISION)

    token = ((image * HEIGHT + query_y) * WIDTH + query_x) * HEADS + head
    tl.store(log_sum_exp + token, (largest + tl.log2(total)) / LOG2_E, is_query)
    result = (sums / total[:, None]).to(output.dtype.element_ty)
    tl.store(output + token[:, None] * HEAD_DIM + channel[None, :], result, query_mask)
