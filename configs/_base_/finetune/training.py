# Schedule and runtime for fine-tuning on few images, possibly on a CPU: a hundredth of the 90,000
# iterations on COCO, in float32.
custom_imports = dict(imports=['nat_mm'], allow_failed_imports=False)

iterations = 900
train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations, val_interval=iterations // 3)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=iterations, eta_min=1e-6),
]
# The learning rates are for batches of 2 images.
auto_scale_lr = dict(enable=False, base_batch_size=2)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    # No weight decay for norms and relative positional biases.
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, custom_keys=dict(rpb=dict(decay_mult=0.0))
    ),
    clip_grad=dict(max_norm=5.0),
)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', by_epoch=False, interval=iterations // 3, max_keep_ckpts=1
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
log_processor = dict(type='LogProcessor', window_size=20, by_epoch=False)
log_level = 'INFO'
randomness = dict(seed=0)
load_from = None
resume = False
