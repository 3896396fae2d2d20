# Schedule and runtime that both training runs of the demo share.
custom_imports = dict(imports=['nat_mm'], allow_failed_imports=False)

iterations = 1000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=iterations // 4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.98), weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=dict(rpb=dict(decay_mult=0.0))
    ),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=80),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=80, end=iterations, eta_min=1e-6),
]

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', by_epoch=False, interval=iterations // 4, max_keep_ckpts=1
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
randomness = dict(seed=0)
env_cfg = dict(cudnn_benchmark=False)
log_processor = dict(type='LogProcessor', window_size=20, by_epoch=False)
log_level = 'INFO'
load_from = None
resume = False
