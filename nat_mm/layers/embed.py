"""From image to tokens."""

import torch
from torch import nn
from torch.nn.functional import pad


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


class PatchTokenizer(nn.Module):
    """Swin's tokenizer (arXiv 2103.14030): one 4x4 convolution of stride 4, then LayerNorm.

    Images whose height or width is not a multiple of 4 are zero-padded at the bottom and right.

    Args:
        in_channels: Number of image channels.
        embed_dim: Number of token channels.
        norm: Whether there is a LayerNorm.
    """

    def __init__(self, in_channels: int, embed_dim: int, *, norm: bool = True) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dim, kernel_size=4, stride=4)
        self.norm = nn.LayerNorm(embed_dim) if norm else nn.Identity()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps an image ``[B, in_channels, H, W]`` to ``[B, ceil(H/4), ceil(W/4), embed_dim]``."""
        height, width = image.shape[2:]
        # A compiled graph always pads, so that it serves images of any size. The convolution leaves
        # out what is too much.
        if torch.compiler.is_compiling() or height % 4 or width % 4:
            image = pad(image, (0, 3, 0, 3))
        image = image.contiguous(memory_format=torch.channels_last)
        return self.norm(self.proj(image).permute(0, 2, 3, 1))
