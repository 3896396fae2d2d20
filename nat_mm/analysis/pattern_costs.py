"""Measures what it costs to run a backbone: time, and peak memory of its tensors."""

import itertools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.benchmark import Timer
from torch.utils.benchmark.utils.timer import timer as wall_clock

MODES = ('inference', 'training')


def make_work(backbone: nn.Module, images: Tensor, mode: str) -> Callable[[], None]:
    """Returns the work to measure: a forward pass, for 'training' with the backward pass.

    Args:
        backbone: The backbone; put into eval or training mode.
        images: Its input, [B, C, H, W].
        mode: One of ``MODES``.
    """
    backbone.train(mode == 'training')

    def infer() -> None:
        with torch.inference_mode():
            backbone(images)

    def train() -> None:
        backbone.zero_grad()
        sum(output.mean() for output in backbone(images)).backward()

    return infer if mode == 'inference' else train


def measure_seconds(
    works: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 3,
    seconds: float = 1.0,
    clock: Callable[[], float] = wall_clock,
) -> dict[str, float]:
    """Times functions in turns, so that a slow moment of the machine affects all of them.

    Args:
        works: Functions to time, by name.
        rounds: Number of turns that each gets.
        seconds: Minimum duration of a turn.
        clock: Returns the time in seconds; the default waits for the GPU first.

    Returns:
        Median seconds per call, by name.
    """
    threads = torch.get_num_threads()
    timers = {
        name: Timer('work()', globals={'work': work}, num_threads=threads, timer=clock)
        for name, work in works.items()
    }
    samples: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            samples[name].append(timer.blocked_autorange(min_run_time=seconds).median)
    return {name: median(each) for name, each in samples.items()}


def measure_peak_memory(work: Callable[[], Any], device: torch.device) -> int:
    """Measures how much more memory PyTorch's tensors take while a function runs than before.

    On the CPU, this counts what PyTorch's allocator hands out, not the process's resident memory.

    Args:
        work: The function. It is called twice, so that what the first call leaves allocated does
            not count.
        device: Where its tensors are, a CPU or a CUDA GPU.

    Returns:
        Bytes.
    """
    work()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with (
        _without_messages(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler,
    ):
        work()
    events = profiler.profiler.kineto_results.events()
    changes = sorted(
        (event.start_ns(), event.nbytes()) for event in events if event.name() == '[memory]'
    )
    return max(itertools.accumulate((size for _, size in changes), initial=0))


@contextmanager
def _without_messages() -> Iterator[None]:
    """Silences what the profiler writes to stderr from C++ when it starts and finds no GPU."""
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, 'w') as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
