# Swin-Tiny: NAT's structure with Swin's attention, tokenizer, downsamplers and proportions.
_base_ = '../_base_/imagenet_300e_224.py'
model = dict(
    backbone=dict(
        type='NAT',
        embed_dim=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        mlp_ratio=4.0,
        drop_path_rate=0.2,
        attention='shifted_window',
        tokenizer='patch',
        downsampler='patch'),
    head=dict(in_channels=768))  # fmt: skip
