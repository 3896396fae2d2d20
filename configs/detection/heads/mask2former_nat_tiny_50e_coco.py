_base_ = ['../_base_/mask2former_lsj_coco_instance.py', '../../_base_/heads.py']
custom_imports = dict(imports=['nat_mm'], allow_failed_imports=False)
model = dict(
    backbone=dict(_delete_=True, **_base_.nat_tiny, out_indices=(0, 1, 2, 3)),
    panoptic_head=dict(in_channels=[64, 128, 256, 512]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.slow_backbone))
