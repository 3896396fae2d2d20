_base_ = ['mmdet::atss/atss_r50_fpn_1x_coco.py', '../../_base_/heads.py']
custom_imports = dict(imports=['nat_mm'], allow_failed_imports=False)
model = dict(
    backbone=dict(_delete_=True, **_base_.nat_tiny, out_indices=(1, 2, 3)),
    neck=dict(in_channels=[128, 256, 512], start_level=0),
)
optim_wrapper = dict(_delete_=True, **_base_.adamw)
