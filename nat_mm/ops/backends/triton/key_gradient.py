"""Backward kernel for key and value: a tile of keys against the queries that attend to it."""

import triton
import triton.language as tl

from nat_mm.ops.backends.triton.window import (
    LOG2_E,
    MAP_SIZES,
    block_tokens,
    class_length,
    load_tokens,
    locate_tile,
    map_position,
    queries_of,
    scores_of,
    store_tokens,
)


@triton.jit(do_not_specialize=MAP_SIZES)
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
    those of the kernels for outputs and queries; ``grad_key`` and ``grad_value`` are slices, 1 and
    2, of what ``grad_query`` is slice 0 of.
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

    key_row, key_column = block_tokens(0, first_row, first_column, 1, TILE_ROWS, TILE_COLUMNS)
    is_key = (key_row < rows) & (key_column < columns)
    key_y, key_x = map_position(
        key_row, key_column, row_class, column_class, DILATION_ROWS, DILATION_COLUMNS
    )
    k = load_tokens(key, key_strides, image, head, key_y, key_x, is_key, HEAD_DIM, CHANNELS)
    v = load_tokens(value, value_strides, image, head, key_y, key_x, is_key, HEAD_DIM, CHANNELS)

    last_row = tl.minimum(first_row + TILE_ROWS, rows) - 1
    last_column = tl.minimum(first_column + TILE_COLUMNS, columns) - 1
    top, bottom = queries_of(first_row, last_row, rows, KERNEL_ROWS)
    left, right = queries_of(first_column, last_column, columns, KERNEL_COLUMNS)
    blocks_across = tl.cdiv(right - left, BLOCK_COLUMNS)
    blocks = tl.cdiv(bottom - top, BLOCK_ROWS) * blocks_across

    dk = tl.zeros((TILE_ROWS * TILE_COLUMNS, CHANNELS), tl.float32)
    dv = tl.zeros((TILE_ROWS * TILE_COLUMNS, CHANNELS), tl.float32)
    for block in range(blocks):
        query_row, query_column = block_tokens(
            block, top, left, blocks_across, BLOCK_ROWS, BLOCK_COLUMNS
        )
        is_query = (query_row < bottom) & (query_column < right)
        query_y, query_x = map_position(
            query_row, query_column, row_class, column_class, DILATION_ROWS, DILATION_COLUMNS
        )
        q = load_tokens(
            query, query_strides, image, head, query_y, query_x, is_query, HEAD_DIM, CHANNELS
        )
        scores = scores_of(
            tl.dot(k, tl.trans(q), input_precision=PRECISION),
            bias,
            head,
            query_row[None, :],
            query_column[None, :],
            key_row[:, None],
            key_column[:, None],
            is_key[:, None] & is_query[None, :],
            rows,
            columns,
            SCALE,
            HAS_BIAS,
            KERNEL_ROWS,
            KERNEL_COLUMNS,
        )
        token = ((image * HEIGHT + query_y) * WIDTH + query_x) * HEADS + head
        lse = tl.load(log_sum_exp + token, is_query, other=0.0) * LOG2_E
        weights = tl.exp2(scores - lse[None, :])
        do = load_tokens(
            grad_output,
            grad_output_strides,
            image,
            head,
            query_y,
            query_x,
            is_query,
            HEAD_DIM,
            CHANNELS,
        )
        dv = tl.dot(weights.to(do.dtype), do, dv, input_precision=PRECISION)
        grad_weights = tl.dot(v, tl.trans(do), input_precision=PRECISION)
        delta_here = tl.load(delta + token, is_query, other=0.0)
        grad_scores = (weights * (grad_weights - delta_here[None, :])).to(q.dtype)
        dk = tl.dot(grad_scores, q, dk, input_precision=PRECISION)

    packed_token = ((image * HEIGHT + key_y) * WIDTH + key_x) * (3 * HEADS) + head
    store_tokens(grad_key, packed_token, dk * SCALE, is_key, HEAD_DIM, CHANNELS)
    store_tokens(grad_value, packed_token, dv, is_key, HEAD_DIM, CHANNELS)
