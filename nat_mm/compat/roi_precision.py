"""Regions keep their place in bf16.

mmdet casts regions to the dtype of the features. bf16 has 8 bits for a coordinate, so a region near
x = 1000 would move by up to 2 pixels.
"""

import functools
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor


def keep_roi_precision(module: ModuleType) -> None:
    """Make SingleRoIExtractor pool bf16 features in fp32, from fp32 regions.

    Args:
        module: ``mmdet.models.roi_heads.roi_extractors.single_level_roi_extractor``.
    """
    extract = module.SingleRoIExtractor.forward

    @functools.wraps(extract)
    def forward(
        self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None
    ) -> Tensor:
        feats = [level.float() if level.dtype == torch.bfloat16 else level for level in feats]
        return extract(self, feats, rois, roi_scale_factor)

    module.SingleRoIExtractor.forward = forward
