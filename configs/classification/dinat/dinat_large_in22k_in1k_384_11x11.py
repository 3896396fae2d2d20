_base_ = '../_base_/imagenet_finetune_30e_384.py'
pretrained = (
    'https://shi-labs.com/projects/dinat/checkpoints/imagenet22k/'
    'dinat_large_in22k_224_11x11interp.pth'
)
model = dict(
    backbone=dict(
        type='DiNAT',
        arch='large',
        kernel_size=11,
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    head=dict(in_channels=1536),
)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-10))
