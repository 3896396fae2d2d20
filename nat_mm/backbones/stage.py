"""One resolution level of a backbone."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from nat_mm.layers import NATLayer


class Stage(nn.Module):
    """Layers at one resolution, then optionally a downsampler.

    Args:
        layers: The layers, each mapping ``[B, H, W, C]`` to the same shape.
        downsample: Maps ``[B, H, W, C]`` to the next stage's input; None for the last stage.
        with_cp: Whether to save memory in training by recomputing each layer in backward
            (activation checkpointing).
    """

    def __init__(
        self,
        layers: Sequence[NATLayer],
        *,
        downsample: nn.Module | None = None,
        with_cp: bool = False,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(layers)
        self.downsample = downsample
        self.with_cp = with_cp

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Runs the layers, not the downsampler: ``[B, H, W, C]`` to the same shape."""
        for layer in self.blocks:
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(layer, x, use_reentrant=False)
            else:
                x = layer(x)
        return x
