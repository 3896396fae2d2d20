"""DiNAT_s (arXiv 2209.15001): Swin's tokenizer, downsamplers and proportions, with NA layers."""

from collections.abc import Sequence
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from nat_mm.backbones.architecture import Architecture
from nat_mm.backbones.base import NeighborhoodBackbone
from nat_mm.layers import PatchMerging, PatchTokenizer
from nat_mm.ops.validation import check_bool


def _architecture(
    *, embed_dim: int, depths: Sequence[int], heads: int, drop_path_rate: float
) -> Architecture:
    return Architecture(
        embed_dim=embed_dim,
        depths=depths,
        num_heads=tuple(heads * 2**stage for stage in range(4)),
        dilations=tuple(
            (1, dilation) * (depth // 2)
            for depth, dilation in zip(depths, (8, 4, 2, 1), strict=True)
        ),
        mlp_ratio=4.0,
        drop_path_rate=drop_path_rate,
    )


# drop_path_rate and dilations are those of the published ImageNet classifiers at 224 x 224
DINAT_S_ARCHITECTURES = {
    'tiny': _architecture(embed_dim=96, depths=(2, 2, 6, 2), heads=3, drop_path_rate=0.2),
    'small': _architecture(embed_dim=96, depths=(2, 2, 18, 2), heads=3, drop_path_rate=0.3),
    'base': _architecture(embed_dim=128, depths=(2, 2, 18, 2), heads=4, drop_path_rate=0.5),
    'large': _architecture(embed_dim=192, depths=(2, 2, 18, 2), heads=6, drop_path_rate=0.35),
}


@MODELS.register_module()
class DiNAT_s(NeighborhoodBackbone):
    """Variant of DiNAT that differs from Swin only in its attention (arXiv 2209.15001).

    Architectures ``tiny``, ``small``, ``base``, ``large``, with the dilations of the ImageNet
    classifiers at 224 x 224; detectors and segmentors pass their own. Without ``arch``,
    ``dilations`` must be given.

    Args:
        patch_norm: Whether the tokenizer ends with a LayerNorm.
        **options: See :class:`~nat_mm.backbones.base.NeighborhoodBackbone`. Without ``arch``,
            ``mlp_ratio`` defaults to 4, as in Swin.
    """

    architectures = DINAT_S_ARCHITECTURES
    stages_name = 'layers'
    dilated = True
    make_downsampler = staticmethod(PatchMerging)

    def __init__(self, *, patch_norm: bool = True, **options: Any) -> None:
        check_bool('patch_norm', patch_norm)
        self._patch_norm = patch_norm
        if options.get('arch') is None:
            options.setdefault('mlp_ratio', 4.0)
        super().__init__(**options)

    def make_tokenizer(self, in_channels: int, embed_dim: int) -> nn.Module:
        return PatchTokenizer(in_channels, embed_dim, norm=self._patch_norm)
