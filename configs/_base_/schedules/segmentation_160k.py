# 160,000 iterations for a segmentor with a NAT, DiNAT or DiNAT_s backbone, as published.
max_iters = 160000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, by_epoch=False, begin=1500, end=max_iters),
]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    # No weight decay for norms and relative positional biases.
    paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0), rpb=dict(decay_mult=0.0))),
)

# The learning rate is for batches of 16 images: 8 GPUs with 2 images each.
auto_scale_lr = dict(enable=False, base_batch_size=16)

# In mmsegmentation, the schedules set the hooks, not default_runtime.py.
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=16000),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='SegVisualizationHook'),
)
