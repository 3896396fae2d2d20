# Each process holds the whole model (DistributedDataParallel).
runner_type = 'FlexibleRunner'
strategy = dict(type='DDPStrategy')
