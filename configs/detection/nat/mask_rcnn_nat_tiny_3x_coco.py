_base_ = '../_base_/mask_rcnn_3x_coco.py'
# Published weights (box AP 47.7, mask AP 42.6):
# https://shi-labs.com/projects/nat/checkpoints/DET/nat_tiny_maskrcnn.pth
pretrained = 'https://shi-labs.com/projects/nat/checkpoints/CLS/nat_tiny.pth'
model = dict(
    backbone=dict(
        type='NAT',
        arch='tiny',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
