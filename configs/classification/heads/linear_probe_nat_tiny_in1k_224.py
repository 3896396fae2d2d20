# A linear head on frozen features.
_base_ = ['../_base_/linear_probe_100e_224.py', '../../_base_/heads.py']
model = dict(
    backbone=dict(_delete_=True, **_base_.nat_tiny, out_indices=(3,), frozen_stages=4),
    head=dict(in_channels=512),
)
