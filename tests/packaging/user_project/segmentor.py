# What a user writes to fine-tune one of our segmentors, but much smaller.
_base_ = 'nat_mm::segmentation/nat/upernet_nat_mini_512x512_160k_ade20k.py'

model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(embed_dim=32, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), init_cfg=None),
    decode_head=dict(in_channels=[32, 64, 128, 256], channels=32, num_classes=2),
    auxiliary_head=dict(in_channels=128, channels=32, num_classes=2),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=(64, 64)),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
data = dict(
    type='BaseSegDataset',
    data_root='data',
    data_prefix=dict(img_path='images', seg_map_path='labels'),
    img_suffix='.png',
    seg_map_suffix='.png',
    reduce_zero_label=True,
    metainfo=dict(classes=('box', 'disc'), palette=[[255, 0, 0], [0, 255, 0]]),
)
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(**data))
train_dataloader['dataset']['pipeline'] = train_pipeline
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(**data))
val_dataloader['dataset']['pipeline'] = test_pipeline
test_dataloader = val_dataloader

train_cfg = dict(max_iters=2, val_interval=4)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
