_base_ = ['../_base_/mask2former_cityscapes_panoptic.py', '../../_base_/mask2former_dinat_large.py']
model = dict(
    backbone=dict(_delete_=True, **_base_.dinat_large),
    panoptic_head=dict(in_channels=_base_.dinat_large_channels, num_queries=200),
)
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, **_base_.dinat_large_paramwise))
