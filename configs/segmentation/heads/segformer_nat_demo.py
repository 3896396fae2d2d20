# A small SegFormer.
_base_ = './segformer_nat_tiny_512x512_160k_ade20k.py'
model = dict(
    backbone=dict(_delete_=True, **_base_.nat_demo, out_indices=(0, 1, 2, 3)),
    decode_head=dict(in_channels=[32, 64, 128, 256], channels=64),
)
