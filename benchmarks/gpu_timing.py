"""Measures times on a GPU: of the kernels, and of the host that launches them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from benchmarks.settings import Settings
from benchmarks.timing import alternating_medians

METHOD = (
    'ms: the GPU alone, median of replays of a CUDA graph that goes through inputs larger than the '
    "cache; us of the host: Python's and PyTorch's time for a call, which the GPU waits for where "
    'it is the larger of the two'
)
SAMPLE_SECONDS = 0.02
HOST_CALLS = 5
"""Calls per sample of the host's time: few, so that the GPU's queue does not fill up."""
HOST_SAMPLES = 20
MOST_SETS = 16
CACHES = 4
"""Total size of the inputs as a multiple of the cache size."""
_OTHER_CACHE = 2**20
"""Assumed cache size in bytes if it is unknown."""

Call = Callable[[], object]


class Times(NamedTuple):
    """Seconds of one call."""

    device: float
    host: float

    def cells(self) -> tuple[str, str]:
        """Formats the device time in milliseconds and the host time in microseconds."""
        return f'{self.device * 1e3:.4f}', f'{self.host * 1e6:.0f}'


class EventClock:
    """Returns the seconds since its creation by the GPU's clock, after all work so far is done."""

    def __init__(self) -> None:
        self._start = torch.cuda.Event(enable_timing=True)
        self._start.record()

    def __call__(self) -> float:
        now = torch.cuda.Event(enable_timing=True)
        now.record()
        now.synchronize()
        return self._start.elapsed_time(now) / 1e3


def number_of_sets(bytes_of_a_set: int, device: torch.device) -> int:
    """Returns how many sets of inputs exceed the cache, at least 1 and at most ``MOST_SETS``."""
    cache = _OTHER_CACHE
    if device.type == 'cuda':
        cache = getattr(torch.cuda.get_device_properties(device), 'L2_cache_size', _OTHER_CACHE)
    return min(MOST_SETS, max(1, -(-CACHES * cache // bytes_of_a_set)))


def time_all(
    functions: Mapping[str, Sequence[Call]], device: torch.device, settings: Settings
) -> dict[str, Times | str]:
    """Times functions in turns.

    Args:
        functions: By name, functions that do the same with each of several sets of inputs.
        device: Where they compute. Without a GPU, no graph is recorded, and ``Times.device`` is the
            time of plain loops, including that of the host.
        settings: Number of repeats, and whether this is only a trial.

    Returns:
        By name, the times of one call, or why there are none.
    """
    outcomes: dict[str, Times | str] = {}
    replays: dict[str, Call] = {}
    for name, calls in functions.items():
        try:
            for call in calls:
                call()  # compiles
            outcomes[name] = Times(0.0, _host_seconds(calls, device, settings))
            replays[name] = _record(calls, device)
        except Exception as error:  # a failure of one must not lose the figures of the others
            outcomes[name] = _reason(error)
            _recover(device)
    medians = alternating_medians(
        replays,
        repeats=settings.repeats,
        sample_seconds=0.0 if settings.quick else SAMPLE_SECONDS,
        clock=EventClock() if device.type == 'cuda' else time.perf_counter,
    )
    for name, seconds in medians.items():
        outcomes[name] = outcomes[name]._replace(device=seconds / len(functions[name]))
    return outcomes


def _record(calls: Sequence[Call], device: torch.device) -> Call:
    """Combines all calls into one function; on a GPU, as a CUDA graph without host overhead."""

    def run() -> None:
        for call in calls:
            call()

    if device.type != 'cuda':
        return run
    # Warm up on a side stream: a graph must not depend on earlier work on its own stream.
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream(device).wait_stream(side)
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def _host_seconds(calls: Sequence[Call], device: torch.device, settings: Settings) -> float:
    """Measures the median time until a call returns, which on a GPU is before its work is done."""
    samples = []
    for _ in range(1 if settings.quick else HOST_SAMPLES):
        _wait(device)
        started = time.perf_counter()
        for number in range(HOST_CALLS):
            calls[number % len(calls)]()
        samples.append((time.perf_counter() - started) / HOST_CALLS)
    _wait(device)
    return statistics.median(samples)


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def _recover(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()


def _reason(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return 'no memory'
    return f'{type(error).__name__}: {error}'.splitlines()[0].replace('|', '/')[:80]
