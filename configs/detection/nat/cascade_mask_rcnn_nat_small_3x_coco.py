_base_ = '../_base_/cascade_mask_rcnn_3x_coco.py'
# Published weights (box AP 52.0, mask AP 44.9):
# https://shi-labs.com/projects/nat/checkpoints/DET/nat_small_cascademaskrcnn.pth
pretrained = 'https://shi-labs.com/projects/nat/checkpoints/CLS/nat_small.pth'
model = dict(
    backbone=dict(
        type='NAT',
        arch='small',
        drop_path_rate=0.3,
        layer_scale=1e-05,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
