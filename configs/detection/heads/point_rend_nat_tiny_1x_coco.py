_base_ = ['mmdet::point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py', '../../_base_/heads.py']
custom_imports = dict(imports=['nat_mm'], allow_failed_imports=False)
model = dict(
    data_preprocessor=_base_.imagenet_rgb,
    backbone=dict(_delete_=True, **_base_.nat_tiny, out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
optim_wrapper = dict(_delete_=True, **_base_.adamw)
