"""Backward kernel for key and value: a tile of keys against the queries that attend to it."""

import triton
import triton.language as tl

from nat_mm.ops.backends.triton.window import (
    LOG2_E,
    MAP_SIZES,
    axis_entries,
    biases_of,
    block_tokens,
    class_length,
    fetch,
    load_near,
    load_tokens,
    locate_tile,
    map_position,
    queries_of,
    store_tokens,
)


@triton.jit(do_not_specialize=MAP_SIZES)
def na2d_bwd_kv_kernel(
    query,
    key,
    value,
    bias,
    log_sum_exp,
    remainder,
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
    DIRECT: tl.constexpr,
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

    factor = SCALE * LOG2_E
    number: tl.constexpr = (2 * KERNEL_ROWS - 1) * (2 * KERNEL_COLUMNS - 1)
    table = bias
    if HAS_BIAS:
        table = bias + head * (number + 1)
    own_row = first_row + tl.arange(0, TILE_ROWS)[:, None]
    own_column = first_column + tl.arange(0, TILE_COLUMNS)[:, None]
    queries = query + (image * query_strides[0] + head * query_strides[3])
    grads = grad_output + (image * grad_output_strides[0] + head * grad_output_strides[3])
    numbers = image * HEIGHT * WIDTH * HEADS + head

    dk = tl.zeros((TILE_ROWS * TILE_COLUMNS, CHANNELS), tl.float32)
    dv = tl.zeros((TILE_ROWS * TILE_COLUMNS, CHANNELS), tl.float32)
    for block_left in range(left, right, BLOCK_COLUMNS):
        around_column = block_left + tl.arange(0, BLOCK_COLUMNS)[None, :]
        column_entries = axis_entries(
            around_column, own_column, around_column < right, columns, KERNEL_COLUMNS, 1
        )
        block_row, query_column = block_tokens(0, top, block_left, 1, BLOCK_ROWS, BLOCK_COLUMNS)
        # Beyond the map the last row and column come again, masked.
        query_x = column_class + DILATION_COLUMNS * tl.minimum(query_column, columns - 1)
        for block_top in range(top, bottom, BLOCK_ROWS):
            here = tl.minimum(block_row + (block_top - top), rows - 1)
            query_y = row_class + DILATION_ROWS * here
            near = query_y * query_strides[1] + query_x * query_strides[2]
            q = load_near(queries, near, HEAD_DIM, CHANNELS)
            products = tl.dot(k, tl.trans(q), input_precision=PRECISION)
            around_row = block_top + tl.arange(0, BLOCK_ROWS)[None, :]
            row_entries = axis_entries(
                around_row, own_row, around_row < bottom, rows, KERNEL_ROWS, 2 * KERNEL_COLUMNS - 1
            )
            biases = biases_of(table, row_entries, column_entries, HAS_BIAS, number, DIRECT)
            token = (query_y * WIDTH + query_x) * HEADS
            lse = fetch(log_sum_exp + numbers + token, DIRECT)
            scores = products * factor + biases - lse[None, :]
            if q.dtype == tl.float32:
                scores -= fetch(remainder + numbers + token, DIRECT)[None, :]
            weights = tl.exp2(scores)
            near = query_y * grad_output_strides[1] + query_x * grad_output_strides[2]
            do = load_near(grads, near, HEAD_DIM, CHANNELS)
            dv = tl.dot(weights.to(do.dtype), do, dv, input_precision=PRECISION)
            grad_weights = tl.dot(v, tl.trans(do), input_precision=PRECISION)
            delta_here = fetch(delta + numbers + token, DIRECT)
            grad_scores = (weights * (grad_weights - delta_here[None, :])).to(q.dtype)
            dk = tl.dot(grad_scores, q, dk, input_precision=PRECISION)

    packed_token = (image * HEIGHT * WIDTH + (key_y * WIDTH + key_x)) * (3 * HEADS) + head
    store_tokens(grad_key, packed_token, dk * SCALE, is_key, HEAD_DIM, CHANNELS)
    store_tokens(grad_value, packed_token, dv, is_key, HEAD_DIM, CHANNELS)
