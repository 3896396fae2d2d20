"""Large maps on a CPU, a piece at a time."""

import torch

LARGEST_BYTES = 32 * 2**20
"""Tensors above this are split. The GNU C library takes larger ones from the operating system each
time, which clears every page first: at the widths of a first stage that costs more than a linear
layer."""

PIECE_BYTES = 2 * 2**20
"""Size of a piece: fits in the caches, and is enough work for a matrix product on every core."""


def split_tokens(x: torch.Tensor, channels: int) -> tuple[torch.Tensor, ...]:
    """Splits a map whose tokens are about to be widened.

    Args:
        x: Map, ``[..., C]``.
        channels: Number of channels that each token is about to get.

    Returns:
        Tokens in order, ``[tokens, C]`` each; ``x`` itself alone where nothing is gained: on other
        devices, if all widened tokens need at most ``LARGEST_BYTES``, and in a traced or compiled
        graph, which must serve maps of any size.
    """
    if x.device.type != 'cpu' or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return (x,)
    token_bytes = channels * x.element_size()
    if x.shape[:-1].numel() * token_bytes <= LARGEST_BYTES:
        return (x,)
    return x.flatten(0, -2).split(max(1, PIECE_BYTES // token_bytes))
