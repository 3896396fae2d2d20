"""Feature pyramid from a single feature map, for detectors with isotropic backbones."""

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from nat_mm.ops.validation import check_int


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of ``[B, C, H, W]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes each position."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Neck that builds feature maps of several resolutions from a backbone's last one.

    As in ViTDet (arXiv 2203.16527), stride 4 uses two transposed convolutions, stride 8 one, stride
    16 the map itself, and stride 32 its 2x2 maximum. Each is followed by a 1x1 and a 3x3
    convolution. The last map is subsampled once more for the RPN.

    Args:
        in_channels: Channels of the backbone's last map, a multiple of 4.
        out_channels: Channels of each map of the pyramid.
        init_cfg: mmengine initialization config.
    """

    def __init__(
        self, *, in_channels: int, out_channels: int = 256, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        check_int('in_channels', in_channels, minimum=4)
        check_int('out_channels', out_channels, minimum=1)
        if in_channels % 4:
            raise ValueError(f'in_channels must be a multiple of 4, got {in_channels}')
        half, quarter = in_channels // 2, in_channels // 4
        resizers = [
            nn.Sequential(
                nn.ConvTranspose2d(in_channels, half, 2, stride=2),
                LayerNorm2d(half),
                nn.GELU(),
                nn.ConvTranspose2d(half, quarter, 2, stride=2),
            ),
            nn.ConvTranspose2d(in_channels, half, 2, stride=2),
            nn.Identity(),
            nn.MaxPool2d(2, ceil_mode=True),
        ]
        self.levels = nn.ModuleList(
            nn.Sequential(
                resize,
                nn.Conv2d(channels, out_channels, 1, bias=False),
                LayerNorm2d(out_channels),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                LayerNorm2d(out_channels),
            )
            for resize, channels in zip(
                resizers, (quarter, half, in_channels, in_channels), strict=True
            )
        )

    def forward(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Builds the pyramid.

        Args:
            features: Maps of a backbone; the last one, ``[B, in_channels, H, W]``, is used.

        Returns:
            Five contiguous maps ``[B, out_channels, H_i, W_i]``, with H and W scaled by 4, 2, 1,
            1/2 and 1/4, rounded up.
        """
        maps = [level(features[-1]).contiguous() for level in self.levels]
        maps.append(torch.nn.functional.max_pool2d(maps[-1], 1, stride=2))
        return tuple(maps)
