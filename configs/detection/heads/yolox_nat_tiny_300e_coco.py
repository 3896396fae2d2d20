_base_ = ['mmdet::yolox/yolox_l_8xb8-300e_coco.py', '../../_base_/heads.py']
custom_imports = dict(imports=['nat_mm'], allow_failed_imports=False)
model = dict(
    data_preprocessor=_base_.imagenet_rgb,
    backbone=dict(_delete_=True, **_base_.nat_tiny, out_indices=(1, 2, 3)),
    neck=dict(in_channels=[128, 256, 512]),
)
# A learning rate for batches of 64 images, which falls to a twentieth like YOLOX's own.
adamw = dict(_base_.adamw, optimizer=dict(_base_.adamw.optimizer, lr=4e-4))
optim_wrapper = dict(_delete_=True, **adamw)
param_scheduler = [
    dict(each, eta_min=2e-5) if 'eta_min' in each else each for each in _base_.param_scheduler
]
