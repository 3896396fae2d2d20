# Each process has a part of the weights, gradients and optimizer state (FullyShardedDataParallel).
runner_type = 'FlexibleRunner'
strategy = dict(
    type='FSDPStrategy',
    # Checkpoints hold the whole model, as those of every other training.
    state_dict_cfg='full',
    model_wrapper=dict(
        type='MMFullyShardedDataParallel', auto_wrap_policy=dict(type='wrap_nat_layers')
    ),
)
