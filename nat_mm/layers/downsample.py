"""Between two stages: half the resolution, twice the channels."""

import torch
from torch import nn
from torch.nn.functional import pad

from nat_mm.layers.recompute import recompute_in_backward


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


class PatchMerging(nn.Module):
    """Swin's downsampler (arXiv 2103.14030): each 2x2 tokens through LayerNorm and a linear layer.

    Maps of odd height or width are zero-padded at the bottom and right.

    Args:
        channels: Number of input channels C; the output has 2C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``[B, H, W, C]`` to ``[B, ceil(H/2), ceil(W/2), 2C]``."""
        _, height, width, _ = x.shape
        # A compiled graph always pads, so that it serves maps of any size.
        if torch.compiler.is_compiling() or height % 2 or width % 2:
            x = pad(x, (0, 0, 0, 1, 0, 1))
        # The weights know the four tokens in the order top left, bottom left, top right, bottom
        # right. Behind a map of even size the padding is left out.
        corners = [
            x[:, row : height + row : 2, column : width + column : 2]
            for column in (0, 1)
            for row in (0, 1)
        ]
        x = torch.cat(corners, dim=-1)
        return recompute_in_backward(lambda x: self.reduction(self.norm(x)), x)
