# 12 epochs for a detector with a NAT, DiNAT or DiNAT_s backbone, with the authors' optimizer.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    # No weight decay for norms and relative positional biases.
    paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0), rpb=dict(decay_mult=0.0))),
)

# The learning rate is for batches of 16 images: 8 GPUs with 2 images each.
auto_scale_lr = dict(enable=False, base_batch_size=16)
