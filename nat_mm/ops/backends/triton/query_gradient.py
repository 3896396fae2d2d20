"""Backward kernel for query and bias: a tile of queries against the keys around it."""

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
def differentiate_queries(
    query,
    key,
    value,
    bias,
    output,
    log_sum_exp,
    grad_output,
    delta,
    grad_query,
    partial_tables,
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
    TABLE_ROWS: tl.constexpr,
    TABLE_COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    TABLE_PRECISION: tl.constexpr,
):
    """Gradient of a tile of queries, and what the tile adds to the gradient of the bias.

    Programs and arguments are those of the forward kernel. Besides, ``delta``, float32
    [B, H, W, heads], gets each query's sum of output times its gradient, which the kernel for keys
    needs; ``grad_query`` is slice 0 of [B, H, W, 3, heads, head_dim]; ``partial_tables``, float32
    [programs, TABLE_ROWS, TABLE_COLUMNS] and zero where a program has no queries, gets the table of
    each program.
    """
    program = tl.program_id(0)
    image, head, row_class, column_class, first_row, first_column = locate_tile(
        program,
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
    token = ((image * HEIGHT + query_y) * WIDTH + query_x) * HEADS + head
    # Contiguous, so tokens are HEAD_DIM apart.
    out = load_tokens(
        output, (0, 0, HEAD_DIM, 0), image, head, query_y, token, is_query, HEAD_DIM, CHANNELS
    )
    delta_here = tl.sum(do.to(tl.float32) * out.to(tl.float32), 1)
    tl.store(delta + token, delta_here, is_query)
    lse = tl.load(log_sum_exp + token, is_query, other=0.0) * LOG2_E

    last_row = tl.minimum(first_row + TILE_ROWS, rows) - 1
    last_column = tl.minimum(first_column + TILE_COLUMNS, columns) - 1
    top, bottom = keys_of(first_row, last_row, rows, KERNEL_ROWS)
    left, right = keys_of(first_column, last_column, columns, KERNEL_COLUMNS)
    blocks_across = tl.cdiv(right - left, BLOCK_COLUMNS)
    blocks = tl.cdiv(bottom - top, BLOCK_ROWS) * blocks_across

    dq = tl.zeros((TILE_ROWS * TILE_COLUMNS, CHANNELS), tl.float32)
    table = tl.zeros((TABLE_ROWS, TABLE_COLUMNS), tl.float32)
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
        weights = tl.exp2(scores - lse[:, None])
        v = load_tokens(
            value, value_strides, image, head, key_y, key_x, is_key, HEAD_DIM, CHANNELS
        )
        grad_weights = tl.dot(do, tl.trans(v), input_precision=PRECISION)
        grad_scores = (weights * (grad_weights - delta_here[:, None])).to(q.dtype)
        dq = tl.dot(grad_scores, k, dq, input_precision=PRECISION)
        if HAS_BIAS:
            table = add_by_distance(
                table,
                grad_scores,
                top + block // blocks_across * BLOCK_ROWS - first_row + KERNEL_ROWS - 1,
                left + block % blocks_across * BLOCK_COLUMNS - first_column + KERNEL_COLUMNS - 1,
                TILE_ROWS,
                TILE_COLUMNS,
                BLOCK_ROWS,
                BLOCK_COLUMNS,
                TABLE_ROWS,
                TABLE_COLUMNS,
                PRECISION,
                TABLE_PRECISION,
            )

    # Where each token has gradients of query, key and value side by side.
    packed_token = 3 * token - 2 * head
    store_tokens(grad_query, packed_token, dq * SCALE, is_query, HEAD_DIM, CHANNELS)
    if HAS_BIAS:
        row = tl.arange(0, TABLE_ROWS)[:, None] * TABLE_COLUMNS
        at = program.to(tl.int64) * (TABLE_ROWS * TABLE_COLUMNS) + row
        tl.store(partial_tables + at + tl.arange(0, TABLE_COLUMNS)[None, :], table)


@triton.jit
def add_by_distance(
    table,
    grad_scores,
    row_shift,
    column_shift,
    TILE_ROWS: tl.constexpr,
    TILE_COLUMNS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    TABLE_ROWS: tl.constexpr,
    TABLE_COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    TABLE_PRECISION: tl.constexpr,
):
    """Adds up gradients of scores that share an entry of the bias table.

    Entry (a, b) collects those with ``row_shift + key row - query row = a``, likewise columns. With
    rows and columns set apart this is a product with a matrix of zeros and ones from either side:
    no atomic additions, and always the same order.
    """
    # [query row, query column, key row, key column] -> [(query row, key row), (both columns)]
    split = tl.reshape(grad_scores, (TILE_ROWS, TILE_COLUMNS, BLOCK_ROWS, BLOCK_COLUMNS))
    by_rows = tl.reshape(
        tl.permute(split, (0, 2, 1, 3)), (TILE_ROWS * BLOCK_ROWS, TILE_COLUMNS * BLOCK_COLUMNS)
    )
    pair = tl.arange(0, TILE_COLUMNS * BLOCK_COLUMNS)
    distance = column_shift + pair % BLOCK_COLUMNS - pair // BLOCK_COLUMNS
    choice = tl.where(distance[:, None] == tl.arange(0, TABLE_COLUMNS)[None, :], 1.0, 0.0)
    by_column_distance = tl.dot(
        by_rows, choice.to(grad_scores.dtype), input_precision=PRECISION
    )
    pair = tl.arange(0, TILE_ROWS * BLOCK_ROWS)
    distance = row_shift + pair % BLOCK_ROWS - pair // BLOCK_ROWS
    choice = tl.where(tl.arange(0, TABLE_ROWS)[:, None] == distance[None, :], 1.0, 0.0)
    return tl.dot(choice, by_column_distance, table, input_precision=TABLE_PRECISION)
