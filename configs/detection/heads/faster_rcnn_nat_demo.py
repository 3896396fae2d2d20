# A small Faster R-CNN.
_base_ = './faster_rcnn_nat_tiny_1x_coco.py'
model = dict(
    backbone=dict(_delete_=True, **_base_.nat_demo, out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256),
    ),
)
