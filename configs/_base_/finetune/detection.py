# Data and schedule for a detector with masks, with COCO annotations.
_base_ = './training.py'
default_scope = 'mmdet'

# Training and testing read the classes from these annotations and set num_classes of the heads.
dataset_classes = 'from_annotations'

# Maximum long side and maximum short side to which images are resized.
scale = (640, 320)
loader = dict(num_workers=2, persistent_workers=True)
train_dataloader = dict(
    batch_size=2,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root='data/mine/',
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='images/train/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='RandomResize', scale=scale, ratio_range=(0.8, 1.25), keep_ratio=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            dict(type='PackDetInputs'),
        ],
    ),
    **loader,
)
val_dataloader = dict(
    batch_size=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root='data/mine/',
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='images/val/'),
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=scale, keep_ratio=True),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
            ),
        ],
    ),
    **loader,
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric', ann_file='data/mine/annotations/instances_val.json', metric=['bbox', 'segm']
)
test_evaluator = val_evaluator

default_hooks = dict(
    checkpoint=dict(save_best='coco/bbox_mAP'),
    visualization=dict(type='DetVisualizationHook'),
)
visualizer = dict(
    type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer'
)
