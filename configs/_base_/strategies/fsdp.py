# Each process holds part of the weights, gradients and optimizer state (FullyShardedDataParallel).
runner_type = 'FlexibleRunner'
strategy = dict(
    type='FSDPStrategy',
    # Checkpoints contain the whole model, as in other training runs.
    state_dict_cfg='full',
    model_wrapper=dict(
        type='MMFullyShardedDataParallel', auto_wrap_policy=dict(type='wrap_nat_layers')
    ),
)
