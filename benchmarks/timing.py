"""Medians of functions that take turns."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

_SHORTEST = 1e-7
"""Seconds; keeps the number of calls finite where the clock is too coarse to see one."""


def alternating_medians(
    functions: Mapping[str, Callable[[], Any]],
    *,
    repeats: int,
    sample_seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Times functions in turns, so that a slow moment of the machine meets all of them.

    Every function is called twice before it counts: once to fill its caches, once to find how many
    calls make up a sample.

    Args:
        functions: What to time, by name.
        repeats: Number of rounds, in each of which every function gives one sample.
        sample_seconds: How long a sample lasts at least.
        clock: Returns the time in seconds.

    Returns:
        Median seconds per call, by name.
    """
    calls = {}
    for name, function in functions.items():
        function()
        seconds = _seconds_per_call(function, 1, clock)
        calls[name] = max(1, math.ceil(sample_seconds / max(seconds, _SHORTEST)))
    samples = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            samples[name].append(_seconds_per_call(function, calls[name], clock))
    return {name: statistics.median(each) for name, each in samples.items()}


def _seconds_per_call(function: Callable[[], Any], calls: int, clock: Callable[[], float]) -> float:
    started = clock()
    for _ in range(calls):
        function()
    return (clock() - started) / calls
