# A small Mask2Former: 3 layers each in pixel decoder and transformer decoder, and 50 queries.
_base_ = './mask2former_nat_tiny_50e_coco.py'
model = dict(
    backbone=dict(_delete_=True, **_base_.nat_demo, out_indices=(0, 1, 2, 3)),
    panoptic_head=dict(
        in_channels=[32, 64, 128, 256],
        num_queries=50,
        pixel_decoder=dict(encoder=dict(num_layers=3)),
        transformer_decoder=dict(num_layers=3),
    ),
    test_cfg=dict(max_per_image=50),
)
