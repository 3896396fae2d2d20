"""Forward kernel: a tile of queries against the keys and values around it."""

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
def na2d_fwd_kernel(
    query,
    key,
    value,
    bias,
    output,
    statistics,
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
    """Computes each query's softmax attention over its window, online over blocks of keys.

    Each program handles a tile of TILE_ROWS x TILE_COLUMNS queries of one residue class, head and
    image. ``query_image`` to ``value_head`` are strides, separate because torch.compile takes no
    tuples; channels are consecutive. ``bias`` is contiguous [heads, 2 * KERNEL_ROWS - 1,
    2 * KERNEL_COLUMNS - 1], ``output`` contiguous [B, H, W, heads, HEAD_DIM]. ``statistics`` are
    float32 [numbers, B, H, W, heads]: the log-sum-exp of the scores to base 2 and, for float32
    tensors, the remainder lost to its rounding.
    """
    query_strides = (query_image, query_row, query_column, query_head)
    key_strides = (key_image, key_row, key_column, key_head)
    value_strides = (value_image, value_row, value_column, value_head)
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
    keys = key + (image * key_strides[0] + head * key_strides[3])
    values = value + (image * value_strides[0] + head * value_strides[3])
    factor = tl.cast(SCALE, tl.float32) * LOG2_E  # torch.compile passes float64
    largest = tl.full((TILE_ROWS * TILE_COLUMNS,), -1e30, tl.float32)
    total = tl.zeros((TILE_ROWS * TILE_COLUMNS,), tl.float32)
    sums = tl.zeros((TILE_ROWS * TILE_COLUMNS, CHANNELS), tl.float32)
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
                scores = products * factor + pair_biases(
                    table, row_entries, column_entries, last_entry, interior
                )
                new_largest = tl.maximum(largest, tl.max(scores, 1))
                weights = tl.exp2(scores - new_largest[:, None])
                shrink = tl.exp2(largest - new_largest)
                largest = new_largest
                total = total * shrink + tl.sum(weights, 1)
                v = load_block(values, value_strides, near_y, near_x, HEAD_DIM, CHANNELS)
                sums *= shrink[:, None]
                sums = tl.dot(weights.to(v.dtype), v, sums, input_precision=PRECISION)

    total = tl.where(is_own, total, 1.0)
    token = (image * HEIGHT * WIDTH + (y * WIDTH + x)) * HEADS + head
    log_total = tl.log2(total)
    rounded = largest + log_total
    tl.store(statistics + token, rounded, is_own)
    if q.dtype == tl.float32:
        remainder = statistics + tl.cast(IMAGES, tl.int64) * HEIGHT * WIDTH * HEADS
        tl.store(remainder + token, (largest - rounded) + log_total, is_own)
    store_tokens(output, token, sums / total[:, None], is_own, HEAD_DIM, CHANNELS)
