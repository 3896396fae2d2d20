_base_ = '../_base_/upernet_512x512_160k_ade20k.py'
# Published weights (mIoU 48.5, multi-scale 49.7):
# https://shi-labs.com/projects/nat/checkpoints/SEG/nat_base_upernet.pth
pretrained = 'https://shi-labs.com/projects/nat/checkpoints/CLS/nat_base.pth'
model = dict(
    backbone=dict(
        type='NAT',
        arch='base',
        drop_path_rate=0.5,
        layer_scale=1e-05,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
