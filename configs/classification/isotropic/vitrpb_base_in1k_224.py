_base_ = '../_base_/imagenet_300e_224.py'
model = dict(
    backbone=dict(type='NATIsotropic', arch='vitrpb_base', out_indices=(11,)),
    head=dict(in_channels=768),
)
