# Values that the Mask2Former configs for ADE20K use as `_base_.NAME`, as published: short sides of
# 0.5 to 2 times 640 in training, crops of any classes, 160,000 iterations with batches of 16
# images.
crop_steps = [
    dict(
        type='RandomChoiceResize',
        scales=[(2560, 640 * tenths // 10) for tenths in range(5, 21)],
        resize_type='Resize',
        keep_ratio=True,
    ),
    dict(
        type='RandomCrop',
        crop_size=(640, 640),
        crop_type='absolute',
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomFlip', prob=0.5),
]
padding = (640, 640)
test_resize = dict(type='Resize', scale=(2560, 640), keep_ratio=True)
iterations = 160000
