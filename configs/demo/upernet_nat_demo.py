# A small NAT UPerNet, trained from scratch on the generated scenes of nat_mm.demo.
# nat-mm make-scenes work_dirs/demo/data && python tools/train.py THIS_FILE
_base_ = ['../_base_/models/upernet_nat_demo.py', './_base_/training.py']
default_scope = 'mmseg'

data_root = '{{$NAT_MM_DEMO_DATA:work_dirs/demo/data}}/'
metainfo = dict(
    classes=('background', 'star', 'ring', 'cross', 'crescent', 'arrow', 'flower'),
    palette=[
        (0, 0, 0),
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
        (240, 228, 66),
        (204, 50, 50),
        (204, 121, 167),
    ],
)
# mmseg.apis.inference_model reads the pipeline from here.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]

# Label maps are ADE20K-style: 0 (unlabeled) is ignored, and 1 (background) becomes class 0.
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset',
        metainfo=metainfo,
        data_root=data_root,
        reduce_zero_label=True,
        img_suffix='.jpg',
        seg_map_suffix='.png',
        data_prefix=dict(img_path='images/train', seg_map_path='labels/train'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        metainfo=metainfo,
        data_root=data_root,
        reduce_zero_label=True,
        img_suffix='.jpg',
        seg_map_suffix='.png',
        test_mode=True,
        data_prefix=dict(img_path='images/val', seg_map_path='labels/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

default_hooks = dict(visualization=dict(type='SegVisualizationHook'))
visualizer = dict(
    type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name='visualizer'
)
