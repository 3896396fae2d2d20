# A small linear probe.
_base_ = './linear_probe_nat_tiny_in1k_224.py'
model = dict(
    backbone=dict(_delete_=True, **_base_.nat_demo, out_indices=(3,), frozen_stages=4),
    head=dict(in_channels=256),
)
