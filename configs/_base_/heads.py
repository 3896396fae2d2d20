# Values that the configs in */heads use as `_base_.NAME`.

# For FPNs and heads that start at stride 8, set out_indices=(1, 2, 3): an output that no head uses
# gets no gradient, which DistributedDataParallel refuses.
nat_tiny = dict(
    type='NAT',
    arch='tiny',
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://shi-labs.com/projects/nat/checkpoints/CLS/nat_tiny.pth',
    ),
)
# The demo's backbone, small enough for a CPU.
nat_demo = dict(
    type='NAT',
    embed_dim=32,
    depths=(1, 1, 2, 1),
    num_heads=(1, 2, 4, 8),
    mlp_ratio=2.0,
    kernel_size=7,
)

# The normalization with which all released weights were trained. Caffe's ResNets, RTMDet and YOLOX
# use others.
imagenet_rgb = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)

# The authors' optimizer, for batches of 16 images. No weight decay for norms and rpb.
no_decay = dict(decay_mult=0.0)
adamw = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(custom_keys=dict(norm=no_decay, rpb=no_decay)),
)
# For schedules with a tenth of the learning rate for the backbone. For each parameter, the longest
# key that its name contains applies, so exceptions from `backbone` need longer keys.
slow_backbone = {
    'backbone': dict(lr_mult=0.1),
    **dict.fromkeys(
        [
            *('.attn.rpb', '.norm1.weight', '.norm1.bias', '.norm2.weight', '.norm2.bias'),
            *('.downsample.norm', '.patch_embed.norm'),
            *('backbone.norm0', 'backbone.norm1', 'backbone.norm2', 'backbone.norm3'),
        ],
        dict(lr_mult=0.1, decay_mult=0.0),
    ),
}
