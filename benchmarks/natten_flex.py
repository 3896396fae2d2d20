"""Runs NATTEN on the CPU for comparison.

NATTEN >= 0.20 has no CPU kernel. It handles CPU tensors with PyTorch's flex attention, which it
compiles only for GPUs; uncompiled, it stores the scores of all pairs of tokens.
"""

import functools
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.settings import KERNEL_SIZE, StageMap
from nat_mm.ops.folding import fold_bias

WIDTH = 128
"""Number of channels to pad to; uncompiled flex attention requires a power of two."""
LARGEST_SCORES = 1 << 30
"""Bytes of scores above which a map is skipped; several arrays of that size exist at once."""


@functools.cache
def problem() -> str | None:
    """Explains why NATTEN cannot be measured here; None if it can."""
    try:
        import natten  # noqa: F401
    except ImportError:
        return 'NATTEN is not installed'
    tensors = (torch.zeros(1, KERNEL_SIZE, KERNEL_SIZE, 1, 8) for _ in range(3))
    bias = torch.zeros(1, 2 * KERNEL_SIZE - 1, 2 * KERNEL_SIZE - 1)
    try:
        # PyTorch advises only once to compile; suppress that warning here.
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            natten_forward(*tensors, bias)
    except Exception as error:  # installations can fail on CPU tensors in many ways
        return f'NATTEN cannot serve CPU tensors: {error}'
    return None


def fits(stage: StageMap) -> bool:
    """Whether the scores of all pairs of tokens are small enough to be stored."""
    return stage.heads * (stage.height * stage.width) ** 2 * 4 <= LARGEST_SCORES


def natten_forward(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Runs NATTEN with the bias folded into head_dim, as NATTEN has no argument for it."""
    from natten import na2d

    head_dim = query.shape[-1]
    scale = head_dim**-0.5
    window = (KERNEL_SIZE, KERNEL_SIZE)
    query, key = fold_bias(
        query, key, bias, kernel_size=window, dilation=(1, 1), scale=scale, multiple_of=WIDTH
    )
    value = F.pad(value, (0, WIDTH - head_dim))
    output = na2d(query, key, value, kernel_size=window, scale=scale, backend='flex-fna')
    return output[..., :head_dim]
