# What a user writes to fine-tune one of our detectors, but much smaller.
_base_ = 'nat_mm::detection/nat/mask_rcnn_nat_mini_3x_coco.py'

model = dict(
    backbone=dict(embed_dim=32, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), init_cfg=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32),
        bbox_head=dict(in_channels=32, fc_out_channels=64, num_classes=2),
        mask_roi_extractor=dict(out_channels=32),
        mask_head=dict(num_convs=1, in_channels=32, conv_out_channels=32, num_classes=2),
    ),
    train_cfg=dict(rpn_proposal=dict(max_per_img=50), rcnn=dict(sampler=dict(num=16))),
    test_cfg=dict(rpn=dict(max_per_img=50), rcnn=dict(max_per_img=10)),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(128, 96), keep_ratio=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 96), keep_ratio=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
data = dict(
    data_root='data',
    ann_file='instances.json',
    data_prefix=dict(img='images'),
    metainfo=dict(classes=('box', 'disc')),
)
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(**data))
train_dataloader['dataset']['pipeline'] = train_pipeline
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(**data))
val_dataloader['dataset']['pipeline'] = test_pipeline
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='data/instances.json')
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=1, val_interval=2)
default_hooks = dict(logger=dict(interval=1))
