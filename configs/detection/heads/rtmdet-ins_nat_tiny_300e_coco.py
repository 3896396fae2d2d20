_base_ = ['mmdet::rtmdet/rtmdet-ins_l_8xb32-300e_coco.py', '../../_base_/heads.py']
custom_imports = dict(imports=['nat_mm'], allow_failed_imports=False)
model = dict(
    data_preprocessor=_base_.imagenet_rgb,
    backbone=dict(_delete_=True, **_base_.nat_tiny, out_indices=(1, 2, 3)),
    neck=dict(in_channels=[128, 256, 512]),
)
# A quarter of the learning rate, as in mmdet's RTMDet with Swin.
optim_wrapper = dict(
    optimizer=dict(lr=1e-3), paramwise_cfg=dict(custom_keys=dict(rpb=_base_.no_decay))
)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], eta_min=5e-5)]
