_base_ = '../_base_/upernet_640x640_160k_ade20k.py'
pretrained = (
    'https://shi-labs.com/projects/dinat/checkpoints/imagenet22k/dinat_s_large_in22k_224.pth'
)
model = dict(
    backbone=dict(
        type='DiNAT_s',
        arch='large',
        drop_path_rate=0.3,
        dilations=[[1, 20], [1, 10], [1, 2, 1, 3, 1, 4, 1, 5] * 2 + [1, 5], [1, 2]],
        init_cfg=dict(type='Pretrained', checkpoint=pretrained),
    ),
    decode_head=dict(in_channels=[192, 384, 768, 1536]),
    auxiliary_head=dict(in_channels=768),
)
