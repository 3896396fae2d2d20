_base_ = '../_base_/imagenet_300e_224.py'
model = dict(
    backbone=dict(type='NATIsotropic', arch='vitrpb_small', out_indices=(11,)),
    head=dict(in_channels=384),
)
