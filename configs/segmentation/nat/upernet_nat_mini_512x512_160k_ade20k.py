_base_ = '../_base_/upernet_512x512_160k_ade20k.py'
# Published weights (mIoU 45.1, multi-scale 46.4):
# https://shi-labs.com/projects/nat/checkpoints/SEG/nat_mini_upernet.pth
pretrained = 'https://shi-labs.com/projects/nat/checkpoints/CLS/nat_mini.pth'
model = dict(
    backbone=dict(
        type='NAT',
        arch='mini',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
