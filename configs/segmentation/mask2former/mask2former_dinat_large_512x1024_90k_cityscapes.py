_base_ = [
    '../_base_/mask2former_512x1024_90k_cityscapes.py',
    '../../_base_/mask2former_dinat_large.py',
]
model = dict(
    backbone=dict(_delete_=True, **_base_.dinat_large),
    decode_head=dict(in_channels=_base_.dinat_large_channels),
)
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, **_base_.dinat_large_paramwise))
