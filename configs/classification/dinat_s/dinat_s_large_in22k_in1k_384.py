_base_ = '../_base_/imagenet_finetune_30e_384.py'
pretrained = (
    'https://shi-labs.com/projects/dinat/checkpoints/imagenet22k/dinat_s_large_in22k_224.pth'
)
model = dict(
    backbone=dict(
        type='DiNAT_s',
        arch='large',
        dilations=[[1, 13], [1, 6], [1, 3] * 9, [1, 1]],
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    head=dict(in_channels=1536),
)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-5))
