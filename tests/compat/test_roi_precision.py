"""Regions keep their place when the features are bf16."""

import pytest
import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_region_is_pooled_where_it_lies(dtype):
    extractor = SingleRoIExtractor(
        roi_layer={'type': 'RoIAlign', 'output_size': 1, 'sampling_ratio': 1},
        out_channels=1,
        featmap_strides=[4],
    )
    # Every cell holds its own column, up to 255, which bf16 holds exactly.
    features = torch.arange(256.0).expand(1, 1, 8, 256).to(dtype)
    rois = torch.tensor([[0, 1001.0, 4, 1005, 8]])  # the centre is at column 1003 / 4 - 1 / 2
    pooled = extractor([features], rois)
    assert pooled.item() == pytest.approx(1003 / 4 - 0.5)
