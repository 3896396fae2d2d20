"""Times functions in turns."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

_SHORTEST = 1e-7
"""In seconds; keeps the number of calls finite if the clock is too coarse to measure one."""


def alternating_medians(
    functions: Mapping[str, Callable[[], Any]],
    *,
    repeats: int,
    sample_seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Times functions in turns, so that a slow moment of the machine affects all of them.

    Every function is first called twice: once to fill its caches, and once to determine how many
    calls make up a sample.

    Args:
        functions: Functions to time, by name.
        repeats: Number of rounds; in each, every function contributes one sample.
        sample_seconds: Minimum duration of a sample.
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
