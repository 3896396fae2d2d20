_base_ = '../_base_/cascade_mask_rcnn_3x_coco.py'
# Published weights (box AP 52.3, mask AP 45.1):
# https://shi-labs.com/projects/nat/checkpoints/DET/nat_base_cascademaskrcnn.pth
pretrained = 'https://shi-labs.com/projects/nat/checkpoints/CLS/nat_base.pth'
model = dict(
    backbone=dict(
        type='NAT',
        arch='base',
        drop_path_rate=0.5,
        layer_scale=1e-05,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
