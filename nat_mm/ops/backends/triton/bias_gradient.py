"""Backward kernel for the bias: sums the tables of all programs of the kernel for queries."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=('IMAGES', 'HEADS', 'PROGRAMS'))
def na2d_bwd_bias_kernel(
    partial_tables,
    grad_bias,
    IMAGES,
    HEADS,
    PROGRAMS,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    TABLE_ROWS: tl.constexpr,
    TABLE_COLUMNS: tl.constexpr,
    STRIP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums over images and programs, always in the same order.

    Each program handles STRIP neighboring entries in one row of one head's table, and reads BLOCK
    tables at a time. ``partial_tables`` are float32 [IMAGES, HEADS, PROGRAMS, TABLE_ROWS,
    TABLE_COLUMNS], ``grad_bias`` is [HEADS, ROWS, COLUMNS], both contiguous.
    """
    column = tl.program_id(0) * STRIP + tl.arange(0, STRIP)
    row = tl.program_id(1)
    head = tl.program_id(2)
    entry = row * TABLE_COLUMNS + column
    sums = tl.zeros((BLOCK, STRIP), tl.float32)
    tables = IMAGES * PROGRAMS
    for first in range(0, tables, BLOCK):
        number = first + tl.arange(0, BLOCK)
        image = (number // PROGRAMS).to(tl.int64)
        table = (image * HEADS + head) * PROGRAMS + number % PROGRAMS
        at = table[:, None] * (TABLE_ROWS * TABLE_COLUMNS) + entry[None, :]
        sums += tl.load(partial_tables + at, (number < tables)[:, None], other=0.0)
    total = tl.sum(sums, 0).to(grad_bias.dtype.element_ty)
    tl.store(grad_bias + (head * ROWS + row) * COLUMNS + column, total, column < COLUMNS)
