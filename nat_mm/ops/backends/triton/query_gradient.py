"""Backward kernel for query and bias: a tile of queries against the keys around it."""

import triton
import triton.language as tl

from nat_mm.ops.backends.triton.window import (
    LOG2_E,
    MAP_SIZES,
    axis_entries,
    bias_table,
    lies_inside,
    load_block,
    load_tokens,
    locate_tile,
    pair_biases,
    span_around,
    store_tokens,
    tokens_of,
    window_start,
)


@triton.jit(do_not_specialize=MAP_SIZES)
def na2d_bwd_q_kernel(
    query,
    key,
    value,
    bias,
    output,
    statistics,
    grad_output,
    delta,
    grads,
    partial_tables,
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
    TABLE_ROWS: tl.constexpr,
    TABLE_COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
    TABLE_PRECISION: tl.constexpr,
):
    """Computes a tile's gradient of the queries and its contribution to that of the bias.

    Programs and arguments are as in the forward kernel, with three additional outputs: ``delta``,
    float32 [B, H, W, heads], receives each query's sum of output times its gradient, which the
    kernel for keys needs; ``grads`` are [B, H, W, 3, heads, HEAD_DIM], contiguous;
    ``partial_tables``, float32 [programs, TABLE_ROWS, TABLE_COLUMNS], receives each program's bias
    table, and must be zero where a program has no queries.
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
    q = load_tokens(query, query_strides, image, head, y, x, is_own, HEAD_DIM, CHANNELS)
    do = load_tokens(
        grad_output, grad_output_strides, image, head, y, x, is_own, HEAD_DIM, CHANNELS
    )
    token = (image * HEIGHT * WIDTH + (y * WIDTH + x)) * HEADS + head
    # The output is contiguous, so tokens are HEAD_DIM apart.
    out = load_tokens(
        output, (0, 0, HEAD_DIM, 0), image, head, y, token, is_own, HEAD_DIM, CHANNELS
    )
    delta_here = tl.sum(do.to(tl.float32) * out.to(tl.float32), 1)
    is_exact: tl.constexpr = q.dtype == tl.float32
    lse = tl.load(statistics + token, is_own, other=0.0)
    if is_exact:
        remainder = statistics + tl.cast(IMAGES, tl.int64) * HEIGHT * WIDTH * HEADS
        rest = tl.load(remainder + token, is_own, other=0.0)
    keys = key + (image * key_strides[0] + head * key_strides[3])
    values = value + (image * value_strides[0] + head * value_strides[3])
    scale = tl.cast(SCALE, tl.float32)  # torch.compile passes float64
    factor = scale * LOG2_E
    dq = tl.zeros((TILE_ROWS * TILE_COLUMNS, CHANNELS), tl.float32)
    by_row_distance = tl.zeros((TABLE_ROWS, TILE_COLUMNS * BLOCK_COLUMNS), tl.float32)
    total = tl.zeros((TILE_ROWS * TILE_COLUMNS,), tl.float32)
    excess = tl.zeros((TILE_ROWS * TILE_COLUMNS,), tl.float32)
    tl.static_assert(TILE_COLUMNS + KERNEL_COLUMNS - 1 <= BLOCK_COLUMNS)
    # Rounds up without tl.cdiv, which is not a constant expression in Triton 3.6.
    met: tl.constexpr = -(-(TILE_ROWS + KERNEL_ROWS - 1) // BLOCK_ROWS) * BLOCK_ROWS
    is_interior = lies_inside(first_row, rows, KERNEL_ROWS, TILE_ROWS, met, True)
    is_interior &= lies_inside(first_column, columns, KERNEL_COLUMNS, TILE_COLUMNS, 0, True)
    last_entry: tl.constexpr = (2 * KERNEL_ROWS - 1) * (2 * KERNEL_COLUMNS - 1)
    left = window_start(first_column, columns, KERNEL_COLUMNS)
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
                True,
                interior,
            )
            top, bottom = span_around(first_row, rows, KERNEL_ROWS, TILE_ROWS, True, interior)
            column_entries = axis_entries(
                first_column,
                left,
                columns,
                KERNEL_COLUMNS,
                TILE_COLUMNS,
                BLOCK_COLUMNS,
                1,
                True,
                interior,
            )
            # Turn 0 corrects delta, so that the gradients of the scores sum to 0 even though the
            # weights do not quite sum to 1 where scores are large. In 16 bits, these gradients are
            # rounded more coarsely than that.
            for turn in tl.static_range(0 if is_exact else 1, 2):
                for block_top in range(top, bottom, BLOCK_ROWS):
                    near_y, near_x, exists = tokens_of(
                        block_top,
                        left,
                        rows,
                        columns,
                        row_class,
                        column_class,
                        DILATION_ROWS,
                        DILATION_COLUMNS,
                        BLOCK_ROWS,
                        BLOCK_COLUMNS,
                    )
                    k = load_block(keys, key_strides, near_y, near_x, HEAD_DIM, CHANNELS)
                    products = tl.dot(q, tl.trans(k), input_precision=PRECISION)
                    row_entries = axis_entries(
                        first_row,
                        block_top,
                        rows,
                        KERNEL_ROWS,
                        TILE_ROWS,
                        BLOCK_ROWS,
                        row_step,
                        True,
                        interior,
                    )
                    biases = pair_biases(table, row_entries, column_entries, last_entry, interior)
                    scores = products * factor + biases - lse[:, None]
                    if is_exact:
                        scores -= rest[:, None]
                    weights = tl.exp2(scores)
                    v = load_block(values, value_strides, near_y, near_x, HEAD_DIM, CHANNELS)
                    grad_weights = tl.dot(do, tl.trans(v), input_precision=PRECISION)
                    grad_scores = weights * (grad_weights - delta_here[:, None])
                    if turn == 0:
                        total += tl.sum(weights, 1)
                        excess += tl.sum(grad_scores, 1)
                    else:
                        grad_scores = grad_scores.to(q.dtype)
                        dq = tl.dot(grad_scores, k, dq, input_precision=PRECISION)
                        if HAS_BIAS:
                            by_row_distance = add_by_row_distance(
                                by_row_distance,
                                grad_scores,
                                block_top - first_row + KERNEL_ROWS - 1,
                                TILE_ROWS,
                                TILE_COLUMNS,
                                BLOCK_ROWS,
                                BLOCK_COLUMNS,
                                TABLE_ROWS,
                                PRECISION,
                            )
                if turn == 0:
                    # Queries beyond the map have no weights.
                    delta_here += excess / tl.where(is_own, total, 1.0)

    tl.store(delta + token, delta_here, is_own)
    # Each token's gradients of query, key and value lie side by side.
    packed_token = 3 * token - 2 * head
    store_tokens(grads, packed_token, dq * scale, is_own, HEAD_DIM, CHANNELS)
    if HAS_BIAS:
        distance = left - first_column + KERNEL_COLUMNS - 1
        distance += differences(BLOCK_COLUMNS, TILE_COLUMNS)
        choice = tl.where(distance[:, None] == tl.arange(0, TABLE_COLUMNS)[None, :], 1.0, 0.0)
        partial = tl.dot(by_row_distance, choice, input_precision=TABLE_PRECISION)
        row = tl.arange(0, TABLE_ROWS)[:, None] * TABLE_COLUMNS
        at = tl.program_id(0).to(tl.int64) * (TABLE_ROWS * TABLE_COLUMNS) + row
        tl.store(partial_tables + at + tl.arange(0, TABLE_COLUMNS)[None, :], partial)


@triton.jit
def differences(BLOCK: tl.constexpr, TILE: tl.constexpr):
    """Returns index in the block minus index in the tile for all pairs, grouped by tile token."""
    pair = tl.arange(0, TILE * BLOCK)
    return pair % BLOCK - pair // BLOCK


@triton.jit
def add_by_row_distance(
    sums,
    grad_scores,
    row_shift,
    TILE_ROWS: tl.constexpr,
    TILE_COLUMNS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    TABLE_ROWS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Sums the gradients of scores that share a row of the bias table, for each pair of columns.

    Row a collects those with ``row_shift + key row - query row = a``. With rows and columns
    separated, this is a product with a matrix of zeros and ones, which needs no atomic additions
    and always sums in the same order. Columns are summed in the same way, once for all blocks of a
    tile.
    """
    # [query row, query column, key row, key column] -> [(query row, key row), (both columns)]
    split = tl.reshape(grad_scores, (TILE_ROWS, TILE_COLUMNS, BLOCK_ROWS, BLOCK_COLUMNS))
    by_rows = tl.reshape(
        tl.permute(split, (0, 2, 1, 3)), (TILE_ROWS * BLOCK_ROWS, TILE_COLUMNS * BLOCK_COLUMNS)
    )
    distance = row_shift + differences(BLOCK_ROWS, TILE_ROWS)
    choice = tl.where(tl.arange(0, TABLE_ROWS)[:, None] == distance[None, :], 1.0, 0.0)
    return tl.dot(choice.to(grad_scores.dtype), by_rows, sums, input_precision=PRECISION)
