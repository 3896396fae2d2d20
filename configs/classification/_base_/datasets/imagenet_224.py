# The augmentation published for NAT and DiNAT is Swin's: RandAugment (magnitude 9, deviation 0.5)
# and random erasing in a quarter of the images; tests use a center crop after resizing to 256. The
# authors resize training images bilinearly or bicubically at random; here it is always bicubic.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'

# mmpretrain's own commands set these; its configs do not.
loader = dict(pin_memory=True, persistent_workers=True, collate_fn=dict(type='default_collate'))
train_dataloader = dict(batch_size=128, **loader)
val_dataloader = dict(batch_size=128, **loader)
test_dataloader = val_dataloader

# Used by `tools/test.py --tta`: averages the scores of each image and its mirror image.
tta_model = dict(type='AverageClsScoreTTA')
tta_pipeline = [
    *_base_.test_pipeline[:-1],
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='PackInputs')],
        ],
    ),
]
