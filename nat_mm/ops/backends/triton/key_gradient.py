"""Backward kernel for key and value: a tile of keys against the queries that attend to it."""

import triton
import triton.language as tl

from nat_mm.ops.backends.triton.window import (
    LOG2_E,
    MAP_SIZES,
    axis_entries,
    bias_table,
    lies_inside,
    load_block,
    load_numbers,
    load_tokens,
    locate_tile,
    pair_biases,
    span_around,
    store_tokens,
    tokens_of,
)


@triton.jit(do_not_specialize=MAP_SIZES)
def na2d_bwd_kv_kernel(
    query,
    key,
    value,
    bias,
    statistics,
    grad_output,
    delta,
    grads,
    query_image,
    query_row,
    query_column,
    query_head,
    key_image,
    key_row,
    key_column,
    key_head,
    value_image,
    value_row,
    value_column,
    value_head,
    grad_output_image,
    grad_output_row,
    grad_output_column,
    grad_output_head,
    IMAGES,
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
    INTERIOR_ENTRIES: tl.constexpr,
    BORDER_ENTRIES: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Computes the gradients of a tile of keys and values.

    Each program handles a tile of TILE_ROWS x TILE_COLUMNS keys. ``statistics`` come from the
    forward kernel, ``delta`` from the kernel for queries, which has also filled in its part of
    ``grads``.
    """
    query_strides = (query_image, query_row, query_column, query_head)
    key_strides = (key_image, key_row, key_column, key_head)
    value_strides = (value_image, value_row, value_column, value_head)
    grad_output_strides = (grad_output_image, grad_output_row, grad_output_column, grad_output_head)
    image, head, row_class, column_class, rows, columns, first_row, first_column = locate_tile(
        HEIGHT, WIDTH, HEADS, DILATION_ROWS, DILATION_COLUMNS, TILE_ROWS, TILE_COLUMNS
    )
    if (first_row >= rows) | (first_column >= columns):
        return
    y, x, is_own = tokens_of(
        first_row,
        first_column,
        rows,
        columns,
        row_class,
        column_class,
        DILATION_ROWS,
        DILATION_COLUMNS,
        TILE_ROWS,
        TILE_COLUMNS,
    )
    k = load_tokens(key, key_strides, image, head, y, x, is_own, HEAD_DIM, CHANNELS)
    v = load_tokens(value, value_strides, image, head, y, x, is_own, HEAD_DIM, CHANNELS)
    queries = query + (image * query_strides[0] + head * query_strides[3])
    grad_outputs = grad_output + (image * grad_output_strides[0] + head * grad_output_strides[3])
    numbers = image * HEIGHT * WIDTH * HEADS + head
    remainder = statistics
    if k.dtype == tl.float32:  # 16-bit tensors have none
        remainder += tl.cast(IMAGES, tl.int64) * HEIGHT * WIDTH * HEADS
    scale = tl.cast(SCALE, tl.float32)  # torch.compile passes float64
    factor = scale * LOG2_E
    dk = tl.zeros((TILE_ROWS * TILE_COLUMNS, CHANNELS), tl.float32)
    dv = tl.zeros((TILE_ROWS * TILE_COLUMNS, CHANNELS), tl.float32)
    tl.static_assert(TILE_COLUMNS + KERNEL_COLUMNS - 1 <= BLOCK_COLUMNS)
    # Rounds up without tl.cdiv, which is not a constant expression in Triton 3.6.
    met: tl.constexpr = -(-(TILE_ROWS + KERNEL_ROWS - 1) // BLOCK_ROWS) * BLOCK_ROWS
    is_interior = lies_inside(first_row, rows, KERNEL_ROWS, TILE_ROWS, met, False)
    is_interior &= lies_inside(first_column, columns, KERNEL_COLUMNS, TILE_COLUMNS, 0, False)
    last_entry: tl.constexpr = (2 * KERNEL_ROWS - 1) * (2 * KERNEL_COLUMNS - 1)
    # At borders, windows are shifted; inside the map, only the distance of a pair matters.
    for interior in tl.static_range(2):
        if is_interior == (interior == 1):
            entries: tl.constexpr = INTERIOR_ENTRIES if interior else BORDER_ENTRIES
            row_step: tl.constexpr = (
                BLOCK_COLUMNS + TILE_COLUMNS - 1 if interior else 2 * KERNEL_COLUMNS - 1
            )
            table = bias_table(
                bias,
                head,
                HAS_BIAS,
                KERNEL_ROWS,
                KERNEL_COLUMNS,
                TILE_ROWS,
                TILE_COLUMNS,
                BLOCK_COLUMNS,
                entries,
                False,
                interior,
            )
            top, bottom = span_around(first_row, rows, KERNEL_ROWS, TILE_ROWS, False, interior)
            left, right = span_around(
                first_column, columns, KERNEL_COLUMNS, TILE_COLUMNS, False, interior
            )
            for block_left in range(left, right, BLOCK_COLUMNS):
                column_entries = axis_entries(
                    first_column,
                    block_left,
                    columns,
                    KERNEL_COLUMNS,
                    TILE_COLUMNS,
                    BLOCK_COLUMNS,
                    1,
                    False,
                    interior,
                )
                for block_top in range(top, bottom, BLOCK_ROWS):
                    near_y, near_x, exists = tokens_of(
                        block_top,
                        block_left,
                        rows,
                        columns,
                        row_class,
                        column_class,
                        DILATION_ROWS,
                        DILATION_COLUMNS,
                        BLOCK_ROWS,
                        BLOCK_COLUMNS,
                    )
                    token = numbers + (near_y * WIDTH + near_x) * HEADS
                    if BLOCK_ROWS > 1:
                        lse, rest, delta_here = load_numbers(statistics, remainder, delta, token)
                    else:
                        lse = tl.load(statistics + token)
                        rest = tl.load(remainder + token)
                        delta_here = tl.load(delta + token)
                    q = load_block(queries, query_strides, near_y, near_x, HEAD_DIM, CHANNELS)
                    products = tl.dot(k, tl.trans(q), input_precision=PRECISION)
                    row_entries = axis_entries(
                        first_row,
                        block_top,
                        rows,
                        KERNEL_ROWS,
                        TILE_ROWS,
                        BLOCK_ROWS,
                        row_step,
                        False,
                        interior,
                    )
                    biases = pair_biases(table, row_entries, column_entries, last_entry, interior)
                    scores = products * factor + biases - lse[None, :]
                    if q.dtype == tl.float32:
                        scores -= rest[None, :]
                    weights = tl.exp2(scores)
                    do = load_block(
                        grad_outputs, grad_output_strides, near_y, near_x, HEAD_DIM, CHANNELS
                    )
                    dv = tl.dot(weights.to(do.dtype), do, dv, input_precision=PRECISION)
                    grad_weights = tl.dot(v, tl.trans(do), input_precision=PRECISION)
                    grad_scores = (weights * (grad_weights - delta_here[None, :])).to(q.dtype)
                    dk = tl.dot(grad_scores, q, dk, input_precision=PRECISION)

    # Each token's gradients of query, key and value lie side by side.
    packed_token = (image * HEIGHT * WIDTH + (y * WIDTH + x)) * (3 * HEADS) + head
    store_tokens(grads, packed_token + HEADS, dk * scale, is_own, HEAD_DIM, CHANNELS)
    store_tokens(grads, packed_token + 2 * HEADS, dv, is_own, HEAD_DIM, CHANNELS)
