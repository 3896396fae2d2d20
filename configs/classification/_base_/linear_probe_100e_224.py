# DINO's schedule for a linear head on frozen features; its learning rate, 1e-3 for batches of 256
# images, is scaled to 1024.
_base_ = [
    'mmpretrain::_base_/schedules/imagenet_sgd_coslr_100e.py',
    './models/classifier.py',
    './datasets/imagenet_224.py',
    './default_runtime.py',
]
model = dict(head=dict(loss=dict(_delete_=True, type='CrossEntropyLoss')))
# Only random crops and flips.
train_pipeline = [*_base_.train_pipeline[:3], _base_.train_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
optim_wrapper = dict(optimizer=dict(lr=4e-3, weight_decay=0.0))
auto_scale_lr = dict(enable=False, base_batch_size=1024)
