"""From image to tokens."""

import torch
from torch import nn


class ConvTokenizer(nn.Module):
    """NAT's overlapping tokenizer: two 3x3 convolutions of stride 2, then LayerNorm.

    Args:
        in_channels: Number of image channels.
        embed_dim: Number of token channels; even, as the first convolution makes half of them.
    """

    def __init__(self, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(in_channels, embed_dim // 2, kernel_size=3, stride=2, padding=1),
            nn.Conv2d(embed_dim // 2, embed_dim, kernel_size=3, stride=2, padding=1),
        )
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps an image ``[B, in_channels, H, W]`` to ``[B, ceil(H/4), ceil(W/4), embed_dim]``."""
        # Convolutions then write channels-last too, so that the permuted map is contiguous.
        image = image.contiguous(memory_format=torch.channels_last)
        return self.norm(self.proj(image).permute(0, 2, 3, 1))
