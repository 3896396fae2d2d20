# Training from scratch on ImageNet-1k.
_base_ = [
    './models/classifier.py',
    './datasets/imagenet_224.py',
    './schedules/adamw_300e.py',
    './default_runtime.py',
]

# One of them is applied to each batch, with equal probability.
augments = [dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
model = dict(train_cfg=dict(augments=augments))
