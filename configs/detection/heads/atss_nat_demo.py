# A small ATSS.
_base_ = './atss_nat_tiny_1x_coco.py'
model = dict(
    backbone=dict(_delete_=True, **_base_.nat_demo, out_indices=(1, 2, 3)),
    neck=dict(in_channels=[64, 128, 256], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64, stacked_convs=2),
)
