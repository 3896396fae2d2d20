_base_ = [
    '../_base_/mask2former_lsj_coco_instance.py',
    '../../_base_/mask2former_dinat_large.py',
    '../_base_/schedules/mask2former_100e.py',
]
custom_imports = dict(imports=['nat_mm'], allow_failed_imports=False)
model = dict(
    backbone=dict(_delete_=True, **_base_.dinat_large),
    panoptic_head=dict(in_channels=_base_.dinat_large_channels, num_queries=200),
)
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, **_base_.dinat_large_paramwise))
param_scheduler = dict(end=_base_.iterations_100e, milestones=_base_.steps_100e)
train_cfg = dict(max_iters=_base_.iterations_100e, dynamic_intervals=_base_.validation_100e)
