# A small DINO: 3 encoder and decoder layers each, and 100 queries. Its embed_dims stay at 256,
# because they are set in nine places of mmdet's config.
_base_ = './dino_nat_tiny_12e_coco.py'
model = dict(
    num_queries=100,
    backbone=dict(_delete_=True, **_base_.nat_demo, out_indices=(1, 2, 3)),
    neck=dict(in_channels=[64, 128, 256]),
    encoder=dict(num_layers=3, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=512))),
    decoder=dict(num_layers=3, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=512))),
    test_cfg=dict(max_per_img=100),
)
