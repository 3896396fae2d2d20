"""Splits a map into tiles of queries, each with its halo of keys, as views.

The halo of a tile is the union of its queries' windows. Every query of the tile attends to the
whole halo, and a mask removes the keys outside its own window. Tiles of the same size and offset
from their halo share mask and bias, so a few *segments*, runs of such tiles, describe an axis.
Dilation splits a map into smaller undilated maps, its residue classes, which have at most two
lengths per axis.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class TileRun(NamedTuple):
    """A run of equal tiles along one axis of a residue class."""

    query_start: int
    key_start: int
    tiles: int
    tile: int
    """Number of queries in a tile, and the distance from one tile to the next."""
    halo: int
    """Number of keys that a tile's queries attend to."""


def tile_size(kernel_size: tuple[int, int]) -> tuple[int, int]:
    """Returns the number of queries in a tile, as (rows, columns).

    Larger tiles mean larger matrix products; smaller tiles waste less work on masked keys. Half a
    window by a whole window was the fastest of the sizes measured. An axis with kernel size 1 gets
    tiles of length 1, since its queries share no keys.
    """
    rows = 1 if kernel_size[0] == 1 else max(4, (kernel_size[0] + 1) // 2)
    columns = 1 if kernel_size[1] == 1 else max(6, kernel_size[1] - 1)
    return rows, columns


class ResidueClasses(NamedTuple):
    """Residue classes of equal length: for each i < number, the tokens first + i + dilation * j."""

    first: int
    number: int
    length: int
    """Number of tokens in each class."""
    dilation: int


def residue_classes(length: int, dilation: int) -> list[ResidueClasses]:
    """Splits an axis of ``length`` tokens into groups of equally long residue classes."""
    shorter, longer = divmod(length, dilation)
    groups = [ResidueClasses(longer, dilation - longer, shorter, dilation)]
    if longer:
        groups.append(ResidueClasses(0, longer, shorter + 1, dilation))
    return groups


def segments(length: int, kernel_size: int, tile: int) -> list[TileRun]:
    """Covers an undilated axis of ``length >= kernel_size`` tokens with tiles."""
    halo = tile + kernel_size - 1
    if length <= halo:
        return [TileRun(0, 0, 1, length, length)]
    found: list[TileRun] = []
    for start in range(0, length, tile):
        size = min(tile, length - start)
        key_start = min(max(start - kernel_size // 2, 0), length - halo)
        last = found[-1] if found else None
        if (
            last is not None
            and last.tile == size
            and last.query_start - last.key_start == start - key_start
        ):
            found[-1] = last._replace(tiles=last.tiles + 1)
        else:
            found.append(TileRun(start, key_start, 1, size, halo))
    return found


def window_in_halo(
    segment: TileRun, length: int, kernel_size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Locates the keys of a halo in the windows of a tile's queries.

    Returns:
        ``(relative, inside)`` of shape [tile, halo]: the entry of the bias table, 0 to 2 *
        kernel_size - 2, and whether the key is inside the window.
    """
    query = segment.query_start + torch.arange(segment.tile, device=device)[:, None]
    key = segment.key_start + torch.arange(segment.halo, device=device)
    start = (query - kernel_size // 2).clamp(0, length - kernel_size)
    inside = (key >= start) & (key < start + kernel_size)
    relative = (key - query + kernel_size - 1).clamp(0, 2 * kernel_size - 2)
    return relative, inside


class TileGroup(NamedTuple):
    """Equal tiles of equally long residue classes; the first of each pair is for rows."""

    classes: tuple[ResidueClasses, ResidueClasses]
    segments: tuple[TileRun, TileRun]

    def queries(self, tensor: Tensor) -> Tensor:
        """Views [B, H, W, heads, D] as tiles, which do not overlap.

        Returns:
            A view [B, row classes, column classes, row tiles, column tiles, heads, rows, columns,
            D].
        """
        return self._view(tensor, [(part.query_start, part.tile) for part in self.segments])

    def keys(self, tensor: Tensor) -> Tensor:
        """Views [B, H, W, heads, D] as halos, which overlap; axes as in ``queries``."""
        return self._view(tensor, [(part.key_start, part.halo) for part in self.segments])

    def _view(self, tensor: Tensor, extents: list[tuple[int, int]]) -> Tensor:
        for axis, (first, number, _, dilation) in enumerate(self.classes, start=1):
            tensor = tensor.narrow(axis, first, tensor.shape[axis] - first)
            tensor = tensor.unfold(axis, number, dilation)
        for axis, (start, size) in enumerate(extents, start=1):
            part = self.segments[axis - 1]
            tensor = tensor.narrow(axis, start, (part.tiles - 1) * part.tile + size)
            tensor = tensor.unfold(axis, size, part.tile)
        # [B, row tiles, column tiles, heads, D, row classes, column classes, rows, columns]
        return tensor.permute(0, 5, 6, 1, 2, 3, 7, 8, 4)


@functools.lru_cache(maxsize=256)
def all_tiles(
    size: tuple[int, int], kernel_size: tuple[int, int], dilation: tuple[int, int]
) -> tuple[TileGroup, ...]:
    """Covers a map of ``size`` (H, W) with tiles that contain each query once."""
    rows, columns = (
        [
            (classes, segment)
            for classes in residue_classes(length, step)
            for segment in segments(classes.length, window, tile)
        ]
        for length, step, window, tile in zip(
            size, dilation, kernel_size, tile_size(kernel_size), strict=True
        )
    )
    return tuple(
        TileGroup((row_classes, column_classes), (row_segment, column_segment))
        for row_classes, row_segment in rows
        for column_classes, column_segment in columns
    )


def blocks(sizes: Sequence[int], limit: int) -> Iterator[tuple[slice, ...]]:
    """Splits an array of shape ``sizes`` into sub-arrays of at most ``limit`` >= 1 elements.

    Yields:
        One slice per axis for each sub-array.
    """
    inner = math.prod(sizes[1:])
    if inner > limit:
        for index in range(sizes[0]):
            for rest in blocks(sizes[1:], limit):
                yield slice(index, index + 1), *rest
    else:
        step = limit // max(inner, 1)
        for start in range(0, sizes[0], step):
            yield slice(start, start + step), *(slice(None),) * (len(sizes) - 1)
