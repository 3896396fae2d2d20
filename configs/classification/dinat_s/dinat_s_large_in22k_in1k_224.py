_base_ = '../_base_/imagenet_finetune_30e_224.py'
pretrained = (
    'https://shi-labs.com/projects/dinat/checkpoints/imagenet22k/dinat_s_large_in22k_224.pth'
)
model = dict(
    backbone=dict(
        type='DiNAT_s', arch='large', init_cfg=dict(type='Pretrained', checkpoint=pretrained)
    ),
    head=dict(in_channels=1536),
)
