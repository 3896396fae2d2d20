"""Modules that reduce the resolution: from image to tokens, and between stages."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from nat_mm.layers.recomputation import LayerNorm, recompute_in_backward
from nat_mm.ops.validation import check_bool


class ConvTokenizer(nn.Module):
    """NAT's overlapping tokenizer: two 3x3 convolutions of stride 2, then LayerNorm.

    Args:
        in_channels: Number of image channels.
        embed_dim: Number of token channels; even, since the first convolution outputs half of them.
    """

    def __init__(self, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(in_channels, embed_dim // 2, kernel_size=3, stride=2, padding=1),
            nn.Conv2d(embed_dim // 2, embed_dim, kernel_size=3, stride=2, padding=1),
        )
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, image: Tensor) -> Tensor:
        """Maps an image ``[B, in_channels, H, W]`` to ``[B, ceil(H/4), ceil(W/4), embed_dim]``."""
        return self.norm(self.proj(_channels_last(image)).permute(0, 2, 3, 1))


class PatchTokenizer(nn.Module):
    """Swin's tokenizer (arXiv 2103.14030): a convolution over patches, then LayerNorm.

    Images whose sides are not multiples of the patch size are zero-padded at the bottom and right.

    Args:
        in_channels: Number of image channels.
        embed_dim: Number of token channels.
        patch_size: Height and width of a patch; the default is Swin's.
        norm: Whether to apply the LayerNorm.
    """

    def __init__(
        self, in_channels: int, embed_dim: int, *, patch_size: int = 4, norm: bool = True
    ) -> None:
        super().__init__()
        check_bool('norm', norm)
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim) if norm else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """Maps ``[B, in_channels, H, W]`` to ``[B, ceil(H/patch), ceil(W/patch), embed_dim]``."""
        height, width = image.shape[2:]
        size = self.patch_size
        # A compiled graph always pads, so that it works for images of any size. The convolution
        # ignores the excess padding.
        if torch.compiler.is_compiling() or height % size or width % size:
            image = pad(image, (0, size - 1, 0, size - 1))
        return self.norm(self.proj(_channels_last(image)).permute(0, 2, 3, 1))


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

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[B, H, W, C]`` to ``[B, ceil(H/2), ceil(W/2), 2C]``."""
        x = self.reduction(x.permute(0, 3, 1, 2))
        return self.norm(x.permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Swin's downsampler (arXiv 2103.14030): merges 2x2 tokens with LayerNorm and a linear layer.

    Maps with odd height or width are zero-padded at the bottom and right.

    Args:
        channels: Number of input channels C; the output has 2C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    @recompute_in_backward
    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[B, H, W, C]`` to ``[B, ceil(H/2), ceil(W/2), 2C]``."""
        _, height, width, _ = x.shape
        # A compiled graph always pads, so that it works for maps of any size.
        if torch.compiler.is_compiling() or height % 2 or width % 2:
            x = pad(x, (0, 0, 0, 1, 0, 1))
        # The weights expect the four tokens in the order top left, bottom left, top right, bottom
        # right. If the height or width is even, the slices leave out its padding.
        corners = [
            x[:, row : height + row : 2, column : width + column : 2]
            for column in (0, 1)
            for row in (0, 1)
        ]
        x = torch.cat(corners, dim=-1)
        return self.reduction(self.norm(x))


def _channels_last(image: Tensor) -> Tensor:
    """Lays an image out so that convolutions output channels-last, which permutes to contiguous.

    ``torch.func.vmap`` does not support memory formats, so there the image stays as it is.
    """
    if torch._C._are_functorch_transforms_active():
        return image
    return image.contiguous(memory_format=torch.channels_last)
