"""Tests that SSD predicts objects."""

import torch
from mmdet.registry import MODELS
from mmengine.hub import get_config
from mmengine.registry import DefaultScope


def test_ssd_predicts():
    instances = predict_with_ssd()
    assert len(instances) > 0
    assert torch.isfinite(instances.scores).all()


def predict_with_ssd():
    """Returns the objects that SSD's head predicts on random feature maps."""
    config = get_config('mmdet::ssd/ssd300_coco.py').model
    sizes = (38, 19, 10, 5, 3, 1)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        head = MODELS.build(config.bbox_head | {'test_cfg': config.test_cfg})
        features = [
            torch.rand(1, channels, size, size)
            for channels, size in zip(config.bbox_head.in_channels, sizes, strict=True)
        ]
        metainfo = {'img_shape': (300, 300), 'scale_factor': (1.0, 1.0)}
        with torch.no_grad():
            (instances,) = head.predict_by_feat(
                *head(features), batch_img_metas=[metainfo], rescale=False
            )
    return instances
