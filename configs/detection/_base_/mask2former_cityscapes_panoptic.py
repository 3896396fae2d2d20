_base_ = [
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
    './mask2former_crops_cityscapes.py',
]
custom_imports = dict(
    imports=['nat_mm', 'nat_mm.data.cityscapes_panoptic'], allow_failed_imports=False
)

num_things_classes, num_stuff_classes = 8, 11
num_classes = num_things_classes + num_stuff_classes
batch_augments = [
    dict(
        type='BatchFixedSizePad',
        size=_base_.padding,
        pad_mask=True,
        pad_seg=True,
        seg_pad_value=255,
    ),
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

data_root = 'data/cityscapes/'
train_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    dict(type='LoadPanopticAnnotations', with_bbox=True, with_mask=True, with_seg=True),
    *_base_.crop_steps,
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True),
    _base_.test_resize,
    dict(type='LoadPanopticAnnotations'),
    dict(
        type='PackDetInputs',
        meta_keys=(
            'img_id',
            'img_path',
            'seg_map_path',
            'segments_info',
            'ori_shape',
            'img_shape',
            'scale_factor',
        ),
    ),
]
train_dataloader = dict(
    dataset=dict(
        type='CityscapesPanopticDataset',
        data_root=data_root,
        ann_file='gtFine/cityscapes_panoptic_train.json',
        data_prefix=dict(
            _delete_=True, img='leftImg8bit/train/', seg='gtFine/cityscapes_panoptic_train/'
        ),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        type='CityscapesPanopticDataset',
        data_root=data_root,
        ann_file='gtFine/cityscapes_panoptic_val.json',
        data_prefix=dict(
            _delete_=True, img='leftImg8bit/val/', seg='gtFine/cityscapes_panoptic_val/'
        ),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
# Cityscapes names segment files differently from images, so that the metric cannot find them by
# itself, and converts the ground truth of the dataset instead.
val_evaluator = dict(
    _delete_=True,
    type='CocoPanopticMetric',
    outfile_prefix='work_dirs/cityscapes_panoptic/results',
)
test_evaluator = val_evaluator

param_scheduler = dict(
    _delete_=True, type='PolyLR', power=0.9, eta_min=0, end=_base_.iterations, by_epoch=False
)
train_cfg = dict(max_iters=_base_.iterations, dynamic_intervals=None)
