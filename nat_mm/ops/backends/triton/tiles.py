"""Tile sizes, which determine how the kernels divide a map among programs."""

from __future__ import annotations

from typing import NamedTuple

SMALLEST_PRODUCT = 16
"""Smallest side of a matrix that Triton multiplies."""


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
"""Register limits per thread for 16-bit tensors, where a limit was faster on an H200.

Without a limit, the compiler uses more registers, and fewer programs run at a time. Some limits
make it spill a few bytes per thread to memory."""

GPUS = ('hopper', 'nvidia', 'amd')
"""Kinds of GPUs with their own tiles: H100, H200 and similar; other NVIDIA GPUs; AMD GPUs."""


class Tiles(NamedTuple):
    """Sizes that a kernel is compiled for.

    Attributes:
        rows: Rows of the tile that a program owns, a power of 2.
        columns: Columns of that tile, a power of 2.
        block_rows: Rows of the blocks that the program reads around the tile, a power of 2.
        block_columns: Columns of these blocks, a power of 2.
        warps: Warps of a program.
        stages: Blocks in flight between memory and registers.
        registers: Limit on registers per thread, so that more programs run at a time; None leaves
            it to the compiler. NVIDIA only.
    """

    rows: int
    columns: int
    block_rows: int
    block_columns: int
    warps: int
    stages: int
    registers: int | None = None

    def options(self) -> dict[str, int]:
        """Returns Triton's compile options other than the sizes."""
        options = {'num_warps': self.warps, 'num_stages': self.stages}
        return options if self.registers is None else {**options, 'maxnreg': self.registers}

    def programs(
        self, batch: int, height: int, width: int, heads: int, dilation: tuple[int, int]
    ) -> int:
        """Returns the number of programs for a map: one per tile, residue class, head and image."""
        # In integers, so that the compiler can compute it for sizes that are variables.
        tiles_down = -(-height // (dilation[0] * self.rows))
        tiles_across = -(-width // (dilation[1] * self.columns))
        return batch * heads * dilation[0] * dilation[1] * tiles_down * tiles_across


def choose_tiles(
    kernel: str,
    *,
    kernel_size: tuple[int, int],
    head_dim: int,
    bytes_per_element: int,
    gpu: str,
) -> Tiles:
    """Returns a kernel's default tiles.

    Tile and window together should fill whole blocks of columns: 8 + 7 - 1 or 4 + 13 - 1 of 16. The
    rest is what was fastest on an H200 for Hopper, and elsewhere what compilers make the most of,
    with blocks as large as fit in the registers; see docs/gpu.md.

    Args:
        kernel: 'forward', or in the backward pass 'queries' or 'keys'.
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
    # Avoids register spills: float32 runs short of registers from 64 channels on.
    is_short = is_float32 and gpu != 'amd' and head_dim >= 64
    # The sums for the bias table multiply matrices with rows * block_rows rows; before 3.8, Triton
    # needs at least 16 of these on NVIDIA GPUs.
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
    """Avoids blocks of one row with 8 warps: on an H200, Triton 3.6 got their products wrong."""
    rows, columns = (16, 4) if is_wide else (8, 8)
    if kernel == 'forward':
        return Tiles(rows // 2, columns, 2, 16, warps=2, stages=3)
    return Tiles(rows, columns, 2, 16, warps=4, stages=3 if kernel == 'queries' else 2)


def _hopper_tiles(kernel: str, is_wide: bool, head_dim: int) -> Tiles:
    """Returns the tiles for 16-bit tensors."""
    rows, columns = (16, 4) if is_wide else (8, 8)
    most = HOPPER_REGISTERS.get((kernel, head_dim > 32, is_wide))
    if kernel == 'forward' and head_dim <= 32:
        return Tiles(rows // 2, columns, 2, 16, warps=2, stages=2, registers=most)
    return Tiles(rows, columns, 2, 16, warps=4, stages=3, registers=most)


def float32_precision(gpu: str, head_dim: int) -> str:
    """Returns the precision of float32 products: 'ieee', or 'tf32x3' for three TF32 products each.

    'tf32x3' is used only up to 32 channels, as more leave too few registers, and only on Hopper, as
    it was not tried elsewhere.
    """
    return 'tf32x3' if gpu == 'hopper' and head_dim <= 32 else 'ieee'


def fast_precision(gpu: str) -> str:
    """Returns the precision of float32 products where TF32 suffices; few AMD GPUs have it."""
    return 'ieee' if gpu == 'amd' else 'tf32'


def product_size(size: int) -> int:
    """Rounds ``size`` up to a matrix size that the kernels can multiply."""
    return max(SMALLEST_PRODUCT, 1 << (size - 1).bit_length())
