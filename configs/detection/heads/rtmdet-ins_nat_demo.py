# A small RTMDet-Ins.
_base_ = './rtmdet-ins_nat_tiny_300e_coco.py'
model = dict(
    backbone=dict(_delete_=True, **_base_.nat_demo, out_indices=(1, 2, 3)),
    neck=dict(in_channels=[64, 128, 256], out_channels=64, num_csp_blocks=1),
    bbox_head=dict(in_channels=64, feat_channels=64),
)
