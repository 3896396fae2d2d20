"""How the kernels divide a map among programs."""

from __future__ import annotations

import math
from typing import NamedTuple

SMALLEST_PRODUCT = 16
"""Least size of a matrix that Triton multiplies."""


class Tiles(NamedTuple):
    """Sizes that a kernel is compiled for.

    Attributes:
        rows: Rows of the tile that a program owns, a power of 2.
        columns: Columns of that tile, a power of 2.
        block_rows: Rows of the blocks that it reads around the tile, a power of 2.
        block_columns: Columns of these blocks, a power of 2.
        warps: Warps of a program.
        stages: Blocks in flight between memory and registers.
    """

    rows: int
    columns: int
    block_rows: int
    block_columns: int
    warps: int
    stages: int

    def programs(
        self, batch: int, height: int, width: int, heads: int, dilation: tuple[int, int]
    ) -> int:
        """Number of programs for a map, one of each residue class, head and image per tile."""
        tiles_down = math.ceil(math.ceil(height / dilation[0]) / self.rows)
        tiles_across = math.ceil(math.ceil(width / dilation[1]) / self.columns)
        return batch * heads * dilation[0] * dilation[1] * tiles_down * tiles_across


def choose_tiles(
    kernel: str,
    *,
    kernel_size: tuple[int, int],
    head_dim: int,
    bytes_per_element: int,
    is_amd: bool,
) -> Tiles:
    """Default tiles of a kernel.

    Tile and window together should fill whole blocks of columns: 8 + 7 - 1 of 16 columns, and
    4 + 13 - 1. The blocks are as large as fits the registers; see docs/gpu.md.

    Args:
        kernel: 'forward', or in backward 'queries' or 'keys'.
        kernel_size: (rows, columns).
        head_dim: Channels of a head.
        bytes_per_element: 2 or 4.
        is_amd: Whether the GPU is AMD's, not NVIDIA's.
    """
    is_float32 = bytes_per_element == 4
    # What spills no registers: float32 is short of them from 64 channels on.
    is_short = is_float32 and not is_amd and head_dim >= 64
    # The sums for the bias table multiply matrices with rows * block_rows rows, of which Triton
    # before 3.8 needs 16 on GPUs of NVIDIA.
    is_tall = kernel_size[1] > 9 or (is_short and kernel == 'queries')
    rows, columns = (16, 4) if is_tall else (8, 8)
    small_blocks = kernel != 'queries' or is_short if is_float32 else is_amd
    small_blocks = small_blocks or (kernel == 'keys' and head_dim > 64)
    small_tiles = is_float32 and is_amd and kernel == 'queries'
    return Tiles(
        rows=rows // 2 if small_tiles else rows,
        columns=columns,
        block_rows=1 if small_blocks else 2,
        block_columns=16,
        warps=8 if is_float32 and not small_tiles else 4,
        stages=1 if is_short and kernel == 'forward' else 2,
    )


def product_size(size: int) -> int:
    """Size of a matrix in the kernels' products that has to hold ``size`` rows or columns."""
    return max(SMALLEST_PRODUCT, 1 << (size - 1).bit_length())
