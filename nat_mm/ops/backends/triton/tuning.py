"""Chooses tiles by timing them on the GPU, if NAT_MM_TRITON_AUTOTUNE=1 is in the environment."""

from __future__ import annotations

import functools
import math
import statistics
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from triton.runtime.errors import OutOfResources

from nat_mm.ops.backends.triton.tiles import SMALLEST_PRODUCT, Tiles

REPEATS = 5
CALLS = 10
"""Calls of a kernel in each of ``REPEATS`` samples."""
LEAST_GAIN = 0.05
"""Fraction of the default's time that other tiles must save; less could be noise."""

_CHOSEN: dict[Hashable, Tiles] = {}


def candidate_tiles(kernel: str, default: Tiles) -> list[Tiles]:
    """Returns the default tiles, and variants that differ from them in one respect.

    Args:
        kernel: 'forward', or in the backward pass 'queries' or 'keys'.
        default: Tiles of :func:`nat_mm.ops.backends.triton.tiles.choose_tiles`.
    """
    others = [
        default._replace(warps=default.warps // 2 if default.warps == 8 else 2 * default.warps),
        default._replace(stages=2 if default.stages == 3 else 3),
        default._replace(block_rows=2 * default.block_rows),
        default._replace(rows=2 * default.rows),
        default._replace(rows=default.rows // 2),
        default._replace(block_rows=default.block_rows // 2),
    ]
    if default.registers is not None:
        others.append(default._replace(registers=None))
    # The sums for the bias table multiply matrices with rows * block_rows rows.
    least = min(SMALLEST_PRODUCT, default.rows * default.block_rows) if kernel == 'queries' else 1
    others = [tiles for tiles in others if tiles.rows * tiles.block_rows >= least]
    if not _is_doubtful(default):
        others = [tiles for tiles in others if not _is_doubtful(tiles)]
    return [default, *others]


def _is_doubtful(tiles: Tiles) -> bool:
    """Returns whether Triton 3.6 gave wrong results with such tiles on an H200, in float32."""
    return tiles.warps >= 8 and tiles.block_rows == 1


def choose(
    key: Hashable,
    candidates: Sequence[Tiles],
    run: Callable[[Tiles], Any],
    *,
    device: torch.device,
    measure: Callable[[Callable[[], Any], torch.device], float] | None = None,
) -> Tiles:
    """Returns the fastest candidate, timed once per key and process.

    All later calls get the same tiles, so equal arguments give bitwise equal results within a
    process. Nothing can be timed while a CUDA graph is being captured; the key then keeps the
    default permanently.

    Args:
        key: What the kernel is compiled for, and the shapes it runs on.
        candidates: Tiles to try, the default first.
        run: Runs the kernel with the given tiles.
        device: Device that the kernel runs on.
        measure: Returns a function's seconds per call on a device; by default the median of several
            samples.
    """
    if key not in _CHOSEN:
        recording = device.type == 'cuda' and torch.cuda.is_current_stream_capturing()
        tiles = candidates[0]
        if not recording:
            tiles = _quickest(candidates, run, device, measure or _seconds)
        _CHOSEN.setdefault(key, tiles)  # another thread may have been first
    return _CHOSEN[key]


def _quickest(
    candidates: Sequence[Tiles],
    run: Callable[[Tiles], Any],
    device: torch.device,
    measure: Callable[[Callable[[], Any], torch.device], float],
) -> Tiles:
    seconds: dict[Tiles, float] = {}
    for tiles in candidates:
        try:
            seconds[tiles] = measure(functools.partial(run, tiles), device)
        except OutOfResources:  # needs more shared memory than the GPU has
            seconds[tiles] = math.inf
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[best] < (1 - LEAST_GAIN) * seconds[candidates[0]] else candidates[0]


def _seconds(function: Callable[[], Any], device: torch.device) -> float:
    function()  # compiles
    samples = [_sample(function, device) for _ in range(REPEATS)]
    return statistics.median(samples)


def _sample(function: Callable[[], Any], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    for _ in range(CALLS):
        function()
    _wait(device)
    return (time.perf_counter() - started) / CALLS


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
