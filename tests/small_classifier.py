# A small variant of the smallest published classifier, for images of 1000 classes.
_base_ = 'nat_mm::classification/nat/nat_mini_in1k_224.py'

model = dict(
    backbone=dict(
        arch=None,
        embed_dim=32,
        depths=(1, 1, 1, 1),
        num_heads=(1, 2, 4, 8),
        kernel_size=3,
        init_cfg=None,
    ),
    head=dict(in_channels=256),
)
