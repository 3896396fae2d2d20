# mmdet's schedule for RTMDet with Swin.
_base_ = ['mmdet::rtmdet/rtmdet_l_swin_b_4xb32-100e_coco.py', '../../_base_/heads.py']
custom_imports = dict(imports=['nat_mm'], allow_failed_imports=False)
model = dict(
    backbone=dict(_delete_=True, **_base_.nat_tiny, out_indices=(1, 2, 3)),
    neck=dict(in_channels=[128, 256, 512]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(rpb=_base_.no_decay)))
