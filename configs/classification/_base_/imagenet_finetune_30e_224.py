# Fine-tuning on ImageNet-1k after ImageNet-22k, without mixing images, as published.
_base_ = [
    './models/classifier.py',
    './datasets/imagenet_224.py',
    './schedules/adamw_finetune_30e.py',
    './default_runtime.py',
]
train_dataloader = dict(batch_size=64)
