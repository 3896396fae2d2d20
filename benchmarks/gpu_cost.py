"""How long neighborhood attention should take on a GPU, predicted from counts and published peaks.

``python -m benchmarks.gpu_cost`` prints docs/gpu_prediction.md for the four stages of
NAT-Tiny on an 800 x 1344 image. It needs no GPU, and nothing in it was timed on one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from benchmarks.gpu_work import (
    PRODUCTS,
    WAYS,
    Work,
    count_map,
    default_tiles,
    least,
    triton_kernel,
    useful_share,
)
from benchmarks.settings import MINIMUM_REPEATS, Settings, StageMap


class Gpu(NamedTuple):
    """Published peaks of a GPU.

    Attributes:
        name: As its maker calls it.
        target: Key of ``nat_mm.ops.backends.triton.resources.TARGETS``.
        flops: Of 16-bit matrix products without sparsity, per second.
        bandwidth: Of its memory, bytes per second.
        multiprocessors: Each starts up to 4 instructions of a warp per cycle.
        clock: Cycles per second at which the published float32 peak is reached.
    """

    name: str
    target: str
    flops: float
    bandwidth: float
    multiprocessors: int
    clock: float


# Data sheets: NVIDIA A100 (80 GB, SXM), "nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf": 312
# TFLOPS, 2039 GB/s, 19.5 TFLOPS in float32; NVIDIA H100 (SXM), https://www.nvidia.com/en-us/
# data-center/h100: 1979 TFLOPS with sparsity, that is 989.5 without, 3.35 TB/s, 67 TFLOPS in
# float32. Multiprocessors (108, 132) and their float32 lanes (64, 128): NVIDIA's white papers on
# both architectures.
GPUS = (
    Gpu('A100', 'sm_80', 312e12, 2039e9, 108, 19.5e12 / (2 * 64 * 108)),
    Gpu('H100', 'sm_90', 989.5e12, 3350e9, 132, 67e12 / (2 * 128 * 132)),
)

INSTRUCTIONS = {
    'sm_80': {'forward': (197, 251), 'queries': (221, 301), 'keys': (244, 307)},
    'sm_90': {'forward': (210, 280), 'queries': (192, 247), 'keys': (238, 313)},
    'sm_100': {'forward': (222, 252), 'queries': (250, 286), 'keys': (408, 450)},
    'sm_120': {'queries': (219, 326)},
}
"""Of a warp for one block inside the map and at its border: kernel size 7, head_dim 32, bfloat16.

Counted by ``loop_instructions`` of ``nat_mm.ops.backends.triton.resources`` in what Triton 3.8
makes of the kernels.
"""


class Limits(NamedTuple):
    """Seconds below which work cannot end: by products, by memory, and by instructions."""

    products: float
    memory: float
    instructions: float | None


def predict(work: Work, gpu: Gpu, warp_instructions: int | None = None) -> Limits:
    """Divides work by a GPU's peaks; instructions are left out where they are not known."""
    rate = gpu.multiprocessors * 4 * gpu.clock
    instructions = None if warp_instructions is None else warp_instructions / rate
    return Limits(work.flops / gpu.flops, work.transferred / gpu.bandwidth, instructions)


def kernel_table(stages: Iterable[StageMap]) -> str:
    """Counts of each kernel of the backend ``triton``, and what each peak allows."""
    titles = ['map', 'kernel', 'programs', 'computed / needed', 'GFLOP', 'MB requested', 'MB moved']
    titles.append('FLOP / byte')
    titles += [
        f'{gpu.name} {limit}, us'
        for gpu in GPUS
        for limit in ('products', 'memory', 'instructions')
    ]
    rows = []
    for stage in stages:
        for kernel in PRODUCTS:
            work = triton_kernel(kernel, stage)
            tiles = default_tiles(kernel, stage)
            count = count_map(stage, tiles, owns='keys' if kernel == 'keys' else 'queries')
            waste = 1 / useful_share(stage, tiles, count)
            row = [str(stage), kernel, str(count.tiles), f'{waste:.2f}']
            row += [f'{work.flops / 1e9:.2f}', f'{work.requested / 1e6:.1f}']
            row += [f'{work.transferred / 1e6:.1f}', f'{work.flops / work.transferred:.0f}']
            for gpu in GPUS:
                each, _ = INSTRUCTIONS[gpu.target][kernel]  # at borders more
                limits = predict(work, gpu, each * tiles.warps * count.blocks)
                row += [f'{seconds * 1e6:.1f}' for seconds in limits]
            rows.append(row)
    return _markdown(titles, rows)


def comparison_table(stages: Iterable[StageMap]) -> str:
    """Counts of the three ways against the least possible, and what products and memory allow."""
    titles = ['map', 'pass', 'way', 'GFLOP', 'of least', 'MB requested', 'MB moved', 'of least']
    titles += [f'{gpu.name}, us' for gpu in GPUS]
    rows = []
    for stage in stages:
        for mode in ('forward', 'backward'):
            lowest = least(mode, stage)
            for way, count in (('least', least), *WAYS.items()):
                work = count(mode, stage)
                row = [str(stage), mode, way]
                row += [f'{work.flops / 1e9:.2f}', f'{work.flops / lowest.flops:.1f}x']
                row += [f'{work.requested / 1e6:.1f}', f'{work.transferred / 1e6:.1f}']
                row.append(f'{work.transferred / lowest.transferred:.1f}x')
                for gpu in GPUS:
                    limits = predict(work, gpu)
                    row.append(f'{max(limits.products, limits.memory) * 1e6:.1f}')
                rows.append(row)
    return _markdown(titles, rows)


def _markdown(titles: list[str], rows: list[list[str]]) -> str:
    lines = [titles, ['---'] * len(titles), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


HEAD = """# What the GPU kernels should cost: a prediction

**Predicted, not timed.** `python -m benchmarks.gpu_cost > docs/gpu_prediction.md` writes this page.
It counts the operations and bytes of the [GPU kernels](gpu.md) for the four stages of NAT-Tiny on
one 800x1344 image, with kernel size 7, a bias and 16-bit tensors. Work divided by the published
peak of a GPU gives a lower bound of the time, unless earlier work left the tensors in the cache.
Maps are given as height x width x channels / heads.

The first table has each kernel with its default tiles:

- *computed / needed* is the waste of the halo: pairs of tokens that are multiplied for each pair of
  neighbors.
- *MB requested* counts a tensor each time that a tile reads it. *MB moved* counts each tensor once
  per kernel, and *FLOP / byte* refers to that.
- *instructions* are those of the loop over blocks inside the map, counted in the compiled code. At
  borders there are more.

The second table compares the whole operator with other ways:

- *least* is what any exact method costs: only products of neighbors, every tensor moved once.
- *natten, bias folded* makes queries and keys of 88 channels, then runs NATTEN 0.21 in tiles of
  8x8.
- *flex* is PyTorch's FlexAttention with masks of 128x128 blocks, without the gradient of its bias.
  Tokens are numbered row by row or in tiles of 8x16.

Its times are the larger of what products and memory allow.
"""


def main() -> None:
    """Prints docs/gpu_prediction.md."""
    print(HEAD)
    stages = Settings(threads=1, repeats=MINIMUM_REPEATS).stage_maps
    print(kernel_table(stages))
    print()
    print(comparison_table(stages))


if __name__ == '__main__':
    main()
