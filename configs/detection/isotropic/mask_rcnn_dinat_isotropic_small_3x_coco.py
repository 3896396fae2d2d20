_base_ = '../_base_/mask_rcnn_3x_coco.py'
weights = 'https://shi-labs.com/projects/dinat/checkpoints/isotropic/'
model = dict(
    backbone=dict(
        _delete_=True,
        type='NATIsotropic',
        arch='dinat_small',
        # The largest dilation that fits the 50 rows of tokens of an image with 800 rows.
        dilations=(1, 7) * 6,
        init_cfg=dict(type='Pretrained', checkpoint=weights + 'dinat_isotropic_small_in1k_224.pth'),
    ),
    neck=dict(_delete_=True, type='SimpleFeaturePyramid', in_channels=384, out_channels=256),
)
