_base_ = [
    '../_base_/models/mask_rcnn.py',
    '../_base_/datasets/coco_instance_multiscale.py',
    '../_base_/schedules/adamw_3x.py',
    '../_base_/default_runtime.py',
]
# Published weights (box AP 46.5, mask AP 41.7):
# https://shi-labs.com/projects/nat/checkpoints/DET/nat_mini_maskrcnn.pth
pretrained = 'https://shi-labs.com/projects/nat/checkpoints/CLS/nat_mini.pth'
model = dict(
    backbone=dict(
        arch='mini', drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained)),
    neck=dict(in_channels=[64, 128, 256, 512]))
