"""Between two stages: half the resolution, twice the channels."""

import torch
from torch import nn


class ConvDownsampler(nn.Module):
    """NAT's downsampler: a 3x3 convolution of stride 2 without bias, then LayerNorm.

    Args:
        channels: Number of input channels C; the output has 2C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(
            channels, 2 * channels, kernel_size=3, stride=2, padding=1, bias=False
        )
        self.norm = nn.LayerNorm(2 * channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``[B, H, W, C]`` to ``[B, ceil(H/2), ceil(W/2), 2C]``."""
        x = self.reduction(x.permute(0, 3, 1, 2))
        return self.norm(x.permute(0, 2, 3, 1))
