# Values that the Mask2Former configs use as `_base_.NAME`.

# The backbone of the published experiments (arXiv 2209.15001): 11x11 windows, close to the 12x12
# ones of the Swin-L that it replaces, and stochastic depth 0.3. The authors' configs name the
# ImageNet-22k weights for 224x224; these are their published 11x11 version.
dinat_large = dict(
    type='DiNAT',
    arch='large',
    kernel_size=11,
    dilations=[[1, 14, 1], [1, 4, 1, 7], [1, 2, 1, 3] * 4 + [1, 3], [1] * 5],
    drop_path_rate=0.3,
    out_indices=(0, 1, 2, 3),
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://shi-labs.com/projects/dinat/checkpoints/imagenet22k/'
        'dinat_large_in22k_224_11x11interp.pth',
    ),
)
dinat_large_channels = [192, 384, 768, 1536]

# Published: a tenth of the learning rate for the backbone, and no weight decay for norms, queries
# and level embeddings. Our addition, as in all configs of this project: none for rpb either.
# For each parameter, the longest key that its name contains applies, so exceptions from `backbone`
# need longer keys; `norm_decay_mult` only affects norms that match no key, those of the heads.
no_decay = dict(decay_mult=0.0)
backbone_no_decay = dict(lr_mult=0.1, decay_mult=0.0)
dinat_large_paramwise = dict(
    norm_decay_mult=0.0,
    custom_keys={
        'backbone': dict(lr_mult=0.1),
        'backbone.patch_embed.norm': backbone_no_decay,
        **{
            f'backbone.levels.{level}.blocks.{block}.{name}': backbone_no_decay
            for level, depth in enumerate((3, 4, 18, 5))
            for block in range(depth)
            for name in ('norm', 'attn.rpb')
        },
        **{f'backbone.levels.{level}.downsample.norm': backbone_no_decay for level in range(3)},
        'backbone.norm': backbone_no_decay,
        'query_embed': no_decay,
        'query_feat': no_decay,
        'level_embed': no_decay,
    },
)
