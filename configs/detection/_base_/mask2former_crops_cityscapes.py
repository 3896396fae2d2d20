# Values that the Mask2Former configs for Cityscapes use as `_base_.NAME`, as published: short sides
# of 0.5 to 2 times 1024 in training, crops of any classes, 90,000 iterations with batches of 16
# images.
crop_steps = [
    dict(
        type='RandomChoiceResize',
        scales=[(4096, 1024 * tenths // 10) for tenths in range(5, 21)],
        resize_type='Resize',
        keep_ratio=True,
    ),
    dict(
        type='RandomCrop',
        crop_size=(1024, 512),
        crop_type='absolute',
        recompute_bbox=True,
        allow_negative_crop=True,
    ),
    dict(type='PhotoMetricDistortion'),
    dict(type='RandomFlip', prob=0.5),
]
padding = (512, 1024)
test_resize = dict(type='Resize', scale=(2048, 1024), keep_ratio=True)
iterations = 90000
