_base_ = [
    '../_base_/models/cascade_mask_rcnn.py',
    '../_base_/datasets/coco_instance_multiscale.py',
    '../_base_/schedules/adamw_3x.py',
    '../_base_/default_runtime.py',
]
# Published weights (box AP 52.3, mask AP 45.1):
# https://shi-labs.com/projects/nat/checkpoints/DET/nat_base_cascademaskrcnn.pth
pretrained = 'https://shi-labs.com/projects/nat/checkpoints/CLS/nat_base.pth'
model = dict(
    backbone=dict(
        arch='base', drop_path_rate=0.5, layer_scale=1e-05,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained)),
    neck=dict(in_channels=[128, 256, 512, 1024]))
