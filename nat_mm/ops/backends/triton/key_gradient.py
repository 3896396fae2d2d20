"""Backward kernel for key and value: a tile of keys against the queries that attend to it."""

import triton
import triton.language as tl

from nat_mm.ops.backends.triton.window import (
    LOG2_E,
    bias_offset,
    class_length,
    first_attending_query,
    is_neighbor,
    last_attending_query,
    locate_tile,
    map_position,
    strided_offset,
)


@triton.jit
def differentiate_keys(
    query,
    key,
    value,
    bias,
    log_sum_exp,
    grad_output,
    delta,
    grad_key,
    grad_value,
    query_strides,
    key_strides,
    value_strides,
    grad_output_strides,
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
    """Gradients of a tile of keys and values.

    One program has one tile of TILE_ROWS x TILE_COLUMNS keys. ``log_sum_exp`` and ``delta`` are
    those of the kernels for outputs and queries; ``grad_key`` and ``grad_value`` are contiguous.
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
    key_row = first_row + index // TILE_COLUMNS
    key_column = first_column + index % TILE_COLUMNS
    is_key = (key_row < rows) & (key_column < columns)
    key_y, key_x = map_position(
        key_row, key_column, row_class, column_class, DILATION_ROWS, DILATION_COLUMNS
    )
    key_mask = is_key[:, None] & (channel < HEAD_DIM)[None, :]
    at = strided_offset(key_strides, image, head, key_y, key_x)
    k = tl.load(key + at[:, None] + channel[None, :], key_mask, other=0.0)
    at = strided_offset(value_strides, image, head, key_y, key_x)
    v = tl.load(value + at[:, None] + channel[None, :], key_mask, other=0.0)

    last_row = tl.minimum(first_row + TILE_ROWS, rows) - 1
    last_column = tl.minimum(first_column + TILE_COLUMNS, columns) - 1
    top = first_attending_query(first_row, KERNEL_ROWS)
    left = first_attending_query(first_column, KERNEL_COLUMNS)
    bottom = last_attending_query(last_row, rows, KERNEL_ROWS) + 1
    right = last_attending_query(last_column, columns, KERNEL_COLUMNS) + 1
    blocks_across = tl.cdiv(right - left, BLOCK_COLUMNS)
    blocks = tl.cdiv(bottom - top, BLOCK_ROWS) * blocks_across

    query_index = tl.arange(0, BLOCK_ROWS * BLOCK_COLUMNS)
    dk = tl.zeros((TILE_ROWS * TILE_COLUMNS, CHANNELS), tl.float32)
    dv = tl.zeros((TILE_ROWS * TILE_COLUMNS, CHANNELS), tl.float32)
    for block in range(blocks):
        query_row = top + block // blocks_across * BLOCK_ROWS + query_index // BLOCK_COLUMNS
        query_column = left + block % blocks_across * BLOCK_COLUMNS + query_index % BLOCK_COLUMNS
        query_y, query_x = map_position(
            query_row, query_column, row_class, column_class, DILATION_ROWS, DILATION_COLUMNS
        )
        is_query = (query_row < bottom) & (query_column < right)
        query_mask = is_query[:, None] & (channel < HEAD_DIM)[None, :]
        query_at = strided_offset(query_strides, image, head, query_y, query_x)
        q = tl.load(query + query_at[:, None] + channel[None, :], query_mask, other=0.0)
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * (SCALE * LOG2_E)
        is_seen = is_query[None, :] & is_neighbor(
            query_row[None, :],
            query_column[None, :],
            key_row[:, None],
            key_column[:, None],
            rows,
            columns,
            KERNEL_ROWS,
            KERNEL_COLUMNS,
        )
        if HAS_BIAS:
            entry = bias_offset(
                query_row[None, :],
                query_column[None, :],
                key_row[:, None],
                key_column[:, None],
                KERNEL_ROWS,
                KERNEL_COLUMNS,
            )
            entry += head * (2 * KERNEL_ROWS - 1) * (2 * KERNEL_COLUMNS - 1)
            scores += tl.load(bias + entry, is_seen, other=0.0) * LOG2_E
        token = ((image * HEIGHT + query_y) * WIDTH + query_x) * HEADS + head
        lse = tl.load(log_sum_exp + token, is_query, other=0.0) * LOG2_E
        weights = tl.where(is_seen, tl.exp2(scores - lse[None, :]), 0.0)
        do_at = strided_offset(grad_output_strides, image, head, query_y, query_x)
        do = tl.load(grad_output + do_at[:, None] + channel[None, :], query_mask, other=0.0)
        dv = tl.dot(weights.to(do.dtype), do, dv, input_precision=PRECISION)
        grad_weights = tl.dot(v, tl.trans(do), input_precision=PRECISION)
        delta_here = tl.load(delta + token, is_query, other=0.0)
        grad_scores = (weights * (grad_weights - delta_here[None, :])).to(q.dtype)
        dk = tl.dot(grad_scores, q, dk, input_precision=PRECISION)

    token = ((image * HEIGHT + key_y) * WIDTH + key_x) * HEADS + head
    at = token[:, None] * HEAD_DIM + channel[None, :]
    tl.store(grad_key + at, (dk * SCALE).to(grad_key.dtype.element_ty), key_mask)
    tl.store(grad_value + at, dv.to(grad_value.dtype.element_ty), key_mask)
