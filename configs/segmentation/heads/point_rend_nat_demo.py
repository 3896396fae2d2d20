# A small PointRend.
_base_ = './point_rend_nat_tiny_512x512_160k_ade20k.py'
fpn_head, point_head = _base_.model.decode_head
model = dict(
    backbone=dict(_delete_=True, **_base_.nat_demo, out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    decode_head=[
        dict(fpn_head, in_channels=[64] * 4, channels=64),
        dict(point_head, in_channels=[64], channels=64),
    ],
)
