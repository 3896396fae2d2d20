# A small PointRend. Its heads keep 256 channels, which are set in six places of mmdet's config.
_base_ = './point_rend_nat_tiny_1x_coco.py'
model = dict(
    backbone=dict(_delete_=True, **_base_.nat_demo, out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[32, 64, 128, 256]),
    roi_head=dict(
        bbox_head=dict(fc_out_channels=256),
        mask_head=dict(fc_out_channels=256),
    ),
)
