"""What a launch of the kernels depends on: shapes, options, and the constants for each kernel."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nat_mm.ops.backends.triton.tiles import (
    Tiles,
    choose_tiles,
    fast_precision,
    float32_precision,
    product_size,
)


class LaunchProblem:
    """Everything about a launch that does not depend on the tiles.

    Attributes:
        query: Represents all tensors of its shape.
        head_dim: Number of channels, a constant even while other sizes are variables.
        traced: Whether launches are recorded in a graph. Sizes may then be variables, so nothing
            about the problem may be kept.
        kind: Everything that a launch depends on besides its arguments.
    """

    __slots__ = (
        'query',
        'has_bias',
        'kernel_size',
        'dilation',
        'scale',
        'traced',
        'head_dim',
        'precision',
        'kind',
    )

    def __init__(
        self,
        query: Tensor,
        has_bias: bool,
        kernel_size: tuple[int, int],
        dilation: tuple[int, int],
        scale: float,
        *,
        traced: bool = False,
    ) -> None:
        self.query = query
        self.has_bias = has_bias
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.scale = scale
        self.traced = traced
        self.head_dim = int(query.shape[4])
        is_float32 = query.dtype == torch.float32
        self.precision = _float32_precision(query) if is_float32 else 'ieee'
        window = (has_bias, kernel_size, dilation)
        self.kind = (query.shape, query.dtype, query.device, window, self.precision)

    def constants(self, kernel: str, tiles: Tiles) -> dict[str, Any]:
        """Returns the constants that a kernel is compiled for."""
        constants = make_constants(
            self.head_dim,
            self.has_bias,
            self.kernel_size,
            self.dilation,
            tiles,
            self.precision,
        )
        if kernel == 'queries':
            # TF32 is precise enough to sum 16-bit gradients of scores.
            exact = self.query.dtype == torch.float32
            precision = self.precision if exact else fast_precision(_kind_of_gpu(self.query.device))
            constants |= make_table_constants(self.kernel_size, precision)
        return constants

    def programs(self, tiles: Tiles) -> int:
        """Returns the number of programs in a launch."""
        batch, height, width, heads = self.query.shape[:4]
        return tiles.programs(batch, height, width, heads, self.dilation)

    def has_idle_programs(self, tiles: Tiles) -> bool:
        """Returns whether smaller residue classes may leave some programs without tokens.

        A length that is a variable stays one: it is not compared.
        """
        axes = zip(self.query.shape[1:3], self.dilation, (tiles.rows, tiles.columns), strict=True)
        return any(
            isinstance(length, torch.SymInt)
            or -(-(length // step) // size) < -(-length // (step * size))
            for length, step, size in axes
            if step > 1
        )

    def default_tiles(self, kernel: str) -> Tiles:
        """Returns the tiles of :func:`nat_mm.ops.backends.triton.tiles.choose_tiles`."""
        return choose_tiles(
            kernel,
            kernel_size=self.kernel_size,
            head_dim=self.head_dim,
            bytes_per_element=self.query.element_size(),
            gpu=_kind_of_gpu(self.query.device),
        )


@functools.cache
def _kind_of_gpu(device: torch.device) -> str:
    """Returns one of :data:`nat_mm.ops.backends.triton.tiles.GPUS`; 'nvidia' if interpreted."""
    if torch.version.hip is not None:
        return 'amd'
    is_hopper = device.type == 'cuda' and torch.cuda.get_device_capability(device)[0] == 9
    return 'hopper' if is_hopper else 'nvidia'


def make_constants(
    head_dim: int,
    has_bias: bool,
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    tiles: Tiles,
    precision: str,
) -> dict[str, Any]:
    """Returns constants common to all kernels; ``precision`` is that of float32 products."""
    met = -(-(tiles.rows + kernel_size[0] - 1) // tiles.block_rows) * tiles.block_rows
    distances = tiles.block_columns + tiles.columns - 1
    return {
        'HEAD_DIM': head_dim,
        'HAS_BIAS': has_bias,
        'KERNEL_ROWS': kernel_size[0],
        'KERNEL_COLUMNS': kernel_size[1],
        'DILATION_ROWS': dilation[0],
        'DILATION_COLUMNS': dilation[1],
        'TILE_ROWS': tiles.rows,
        'TILE_COLUMNS': tiles.columns,
        'BLOCK_ROWS': tiles.block_rows,
        'BLOCK_COLUMNS': tiles.block_columns,
        'CHANNELS': product_size(head_dim),
        'INTERIOR_ENTRIES': _power_of_2((met + tiles.rows - 1) * distances),
        'BORDER_ENTRIES': _power_of_2(math.prod(2 * size - 1 for size in kernel_size) + 1),
        'PRECISION': precision,
    }


def _power_of_2(number: int) -> int:
    """Rounds up to a power of 2."""
    return 1 << (number - 1).bit_length()


def make_table_constants(kernel_size: Sequence[int], precision: str) -> dict[str, Any]:
    """Returns constants for the bias table's sums; ``precision`` is that of sums over a tile."""
    rows, columns = (product_size(2 * size - 1) for size in kernel_size)
    return {'TABLE_ROWS': rows, 'TABLE_COLUMNS': columns, 'TABLE_PRECISION': precision}


def _float32_precision(query: Tensor) -> str:
    """Returns the precision of float32 products: TF32 only where PyTorch allows it.

    Otherwise, Hopper uses three TF32 products for each, which together are as exact as one in
    float32 and run on tensor cores.
    """
    gpu = _kind_of_gpu(query.device)
    # allow_tf32 cannot be read once a program has used the newer fp32_precision.
    if torch.backends.cuda.matmul.fp32_precision == 'tf32':
        return fast_precision(gpu)
    return float32_precision(gpu, query.shape[4])
