# Each process has the whole model (DistributedDataParallel).
runner_type = 'FlexibleRunner'
strategy = dict(type='DDPStrategy')
