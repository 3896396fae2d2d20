_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../../_base_/schedules/detection_1x.py',
    '../_base_/default_runtime.py',
    '../../_base_/heads.py',
]
model = dict(
    backbone=dict(_delete_=True, **_base_.nat_tiny, out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
