_base_ = [
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    '../../_base_/heads.py',
]
custom_imports = dict(imports=['nat_mm'], allow_failed_imports=False)
model = dict(
    backbone=dict(_delete_=True, **_base_.nat_tiny, out_indices=(0, 1, 2, 3)),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(rpb=_base_.no_decay)))
