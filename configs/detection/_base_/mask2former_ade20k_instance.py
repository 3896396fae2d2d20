_base_ = [
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    './mask2former_crops_ade20k.py',
]
custom_imports = dict(imports=['nat_mm'], allow_failed_imports=False)

num_things_classes, num_stuff_classes = 100, 0
num_classes = num_things_classes + num_stuff_classes
batch_augments = [
    dict(type='BatchFixedSizePad', size=_base_.padding, pad_mask=True, pad_seg=False),
]
data_preprocessor = dict(batch_augments=batch_augments)
model = dict(
    data_preprocessor=data_preprocessor,
    panoptic_head=dict(
        num_things_classes=num_things_classes,
        num_stuff_classes=num_stuff_classes,
        loss_cls=dict(class_weight=[1.0] * num_classes + [0.1]),
    ),
    panoptic_fusion_head=dict(
        num_things_classes=num_things_classes, num_stuff_classes=num_stuff_classes
    ),
)

data_root = 'data/ADEChallengeData2016/'
train_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    *_base_.crop_steps,
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1e-5, 1e-5), by_mask=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    _base_.test_resize,
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    dataset=dict(
        type='ADE20KInstanceDataset',
        data_root=data_root,
        ann_file='ade20k_instance_train.json',
        data_prefix=dict(_delete_=True, img='images/training/'),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        type='ADE20KInstanceDataset',
        data_root=data_root,
        ann_file='ade20k_instance_val.json',
        data_prefix=dict(_delete_=True, img='images/validation/'),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'ade20k_instance_val.json')
test_evaluator = val_evaluator

param_scheduler = dict(
    _delete_=True, type='PolyLR', power=0.9, eta_min=0, end=_base_.iterations, by_epoch=False
)
train_cfg = dict(max_iters=_base_.iterations, dynamic_intervals=None)
