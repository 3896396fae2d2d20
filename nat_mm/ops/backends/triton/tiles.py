"""How the kernels divide a map among programs."""

from __future__ import annotations

import math
from typing import NamedTuple

SMALLEST_PRODUCT = 16
"""Least size of a matrix that Triton multiplies."""


HOPPER_REGISTERS = {
    # kernel, more than 32 channels, windows of more than 9 columns
    ('forward', False, False): 72,
    ('queries', False, False): 96,
    ('queries', False, True): 128,
    ('queries', True, False): 128,
    ('keys', False, False): 128,
    ('keys', False, True): 128,
    ('keys', True, False): 168,
}
"""Most registers of a thread with 16-bit tensors, where a limit was quicker on an H200.

The compiler would take more, and fewer programs would run at a time. Some limits make it put a few
bytes of a thread into memory."""

GPUS = ('hopper', 'nvidia', 'amd')
"""Kinds of GPUs that get tiles of their own: H100, H200 and the like, NVIDIA's others, AMD's."""


class Tiles(NamedTuple):
    """Sizes that a kernel is compiled for.

    Attributes:
        rows: Rows of the tile that a program owns, a power of 2.
        columns: Columns of that tile, a power of 2.
        block_rows: Rows of the blocks that it reads around the tile, a power of 2.
        block_columns: Columns of these blocks, a power of 2.
        warps: Warps of a program.
        stages: Blocks in flight between memory and registers.
        registers: Most registers of a thread, so that more programs run at a time; None leaves it
            to the compiler. On NVIDIA only.
    """

    rows: int
    columns: int
    block_rows: int
    block_columns: int
    warps: int
    stages: int
    registers: int | None = None

    def options(self) -> dict[str, int]:
        """What Triton compiles with besides the sizes."""
        options = {'num_warps': self.warps, 'num_stages': self.stages}
        return options if self.registers is None else {**options, 'maxnreg': self.registers}

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
    gpu: str,
) -> Tiles:
    """Default tiles of a kernel.

    Tile and window together should fill whole blocks of columns: 8 + 7 - 1 of 16 columns, and
    4 + 13 - 1. On Hopper the rest is what was quickest on an H200, elsewhere what compilers make
    the most of, blocks as large as fits the registers; see docs/gpu.md.

    Args:
        kernel: 'forward', or in backward 'queries' or 'keys'.
        kernel_size: (rows, columns).
        head_dim: Channels of a head.
        bytes_per_element: 2 or 4.
        gpu: One of ``GPUS``.
    """
    is_float32 = bytes_per_element == 4
    is_wide = kernel_size[1] > 9
    if is_float32 and float32_precision(gpu, head_dim) == 'tf32x3':
        return _hopper_tiles_of_float32(kernel, is_wide)
    if gpu == 'hopper' and not is_float32 and head_dim <= 64:
        return _hopper_tiles(kernel, is_wide, head_dim)
    # What spills no registers: float32 is short of them from 64 channels on.
    is_short = is_float32 and gpu != 'amd' and head_dim >= 64
    # The sums for the bias table multiply matrices with rows * block_rows rows, of which Triton
    # before 3.8 needs 16 on GPUs of NVIDIA.
    is_tall = is_wide or (is_short and kernel == 'queries')
    rows, columns = (16, 4) if is_tall else (8, 8)
    small_blocks = kernel != 'queries' or is_short if is_float32 else gpu == 'amd'
    small_blocks = small_blocks or (kernel == 'keys' and head_dim > 64)
    small_tiles = is_float32 and gpu == 'amd' and kernel == 'queries'
    return Tiles(
        rows=rows // 2 if small_tiles else rows,
        columns=columns,
        block_rows=1 if small_blocks else 2,
        block_columns=16,
        warps=8 if is_float32 and not small_tiles else 4,
        stages=1 if is_short and kernel == 'forward' else 2,
    )


def _hopper_tiles_of_float32(kernel: str, is_wide: bool) -> Tiles:
    """Blocks of one row must not have 8 warps: on an H200, Triton 3.6 multiplied those wrongly."""
    rows, columns = (16, 4) if is_wide else (8, 8)
    warps = 8 if kernel == 'queries' else 4
    return Tiles(rows, columns, 2, 16, warps=warps, stages=2)


def _hopper_tiles(kernel: str, is_wide: bool, head_dim: int) -> Tiles:
    """Of 16-bit tensors."""
    rows, columns = (16, 4) if is_wide else (8, 8)
    most = HOPPER_REGISTERS.get((kernel, head_dim > 32, is_wide))
    if kernel == 'forward' and head_dim <= 32:
        return Tiles(rows // 2, columns, 2, 16, warps=2, stages=2, registers=most)
    return Tiles(rows, columns, 2, 16, warps=4, stages=3, registers=most)


def float32_precision(gpu: str, head_dim: int) -> str:
    """How float32 is multiplied: 'ieee', or 'tf32x3' by three products of TF32 for each.

    More channels than 32 leave too few registers for that, and only on Hopper was it tried.
    """
    return 'tf32x3' if gpu == 'hopper' and head_dim <= 32 else 'ieee'


def product_size(size: int) -> int:
    """Size of a matrix in the kernels' products that has to hold ``size`` rows or columns."""
    return max(SMALLEST_PRODUCT, 1 << (size - 1).bit_length())
