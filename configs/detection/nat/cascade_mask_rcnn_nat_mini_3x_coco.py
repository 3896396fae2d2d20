_base_ = '../_base_/cascade_mask_rcnn_3x_coco.py'
# Published weights (box AP 50.3, mask AP 43.6):
# https://shi-labs.com/projects/nat/checkpoints/DET/nat_mini_cascademaskrcnn.pth
pretrained = 'https://shi-labs.com/projects/nat/checkpoints/CLS/nat_mini.pth'
model = dict(
    backbone=dict(
        type='NAT',
        arch='mini',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
