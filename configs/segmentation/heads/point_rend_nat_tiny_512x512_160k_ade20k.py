_base_ = [
    'mmseg::_base_/models/pointrend_r50.py',
    'mmseg::_base_/datasets/ade20k.py',
    '../../_base_/schedules/segmentation_160k.py',
    '../_base_/default_runtime.py',
    '../../_base_/heads.py',
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    pretrained=None,
    backbone=dict(_delete_=True, **_base_.nat_tiny, out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[64, 128, 256, 512]),
    decode_head=[dict(head, num_classes=150) for head in _base_.model.decode_head],
)
