"""Tests that boxes keep their positions when the features are bf16."""

import pytest
import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_region_is_pooled_where_it_lies(dtype):
    extractor = SingleRoIExtractor(
        roi_layer={'type': 'RoIAlign', 'output_size': 1, 'sampling_ratio': 1},
        out_channels=1,
        featmap_strides=[4],
    )
    # Every cell contains its column number, at most 255, which bf16 represents exactly.
    features = torch.arange(256.0, dtype=dtype).repeat(1, 1, 8, 1)
    rois = torch.tensor([[0, 1001.0, 4, 1005, 8]])  # the center is at column 1003 / 4 - 1 / 2
    pooled = extractor([features], rois)
    assert pooled.item() == pytest.approx(1003 / 4 - 0.5)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_proposal_lies_where_its_anchor_is(dtype):
    with DefaultScope.overwrite_default_scope('mmdet'):  # overrides what other tests have set
        head = RPNHead(
            in_channels=8,
            anchor_generator={
                'type': 'AnchorGenerator',
                'scales': [1],
                'ratios': [1.0],
                'strides': [4],
            },
            test_cfg=ConfigDict(
                nms_pre=1,
                max_per_img=1,
                nms={'type': 'nms', 'iou_threshold': 0.7},
                min_bbox_size=0,
            ),
        )
    scores = torch.full((1, 1, 1, 256), -9.0, dtype=dtype)
    scores[..., 251] = 9
    deltas = torch.zeros(1, 4, 1, 256, dtype=dtype)
    meta = {'img_shape': (8, 1024), 'scale_factor': (1.0, 1.0)}
    (proposals,) = head.predict_by_feat([scores], [deltas], batch_img_metas=[meta])
    assert proposals.bboxes.tolist() == [[1002, 0, 1006, 2]]
