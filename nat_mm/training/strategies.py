"""mmengine's FlexibleRunner and its strategies, without a GPU too."""

from mmengine.config import Config
from mmengine.device import get_device

ON_CPU = {
    'DDPStrategy': ('MMDistributedDataParallel', 'device_ids', None),
    'FSDPStrategy': ('MMFullyShardedDataParallel', 'device_id', 'cpu'),
}
"""The model wrapper of each strategy, that one's argument for GPU numbers, and what to give."""


def prepare_strategy(config: Config) -> None:
    """Makes the strategy of ``config`` run under its launcher, on CPUs too.

    Without a launcher there is one process, which needs no strategy, so that what was trained in
    several processes is tested with the same config. On CPUs, where
    :func:`nat_mm.training.distributed.prepare_distributed` has started the process group, the model
    wrapper is told not to use GPU numbers.

    Args:
        config: Experiment; ``launcher`` says how the processes were started. Changed in place.
    """
    if config.get('runner_type') != 'FlexibleRunner':
        return
    # It, unlike Runner, cannot do without this, and in tests loads the weights of init_cfg first.
    config.setdefault('env_cfg', dict(dist_cfg=dict(backend='nccl')))
    config.setdefault('init_weights_for_test_or_val', False)
    if config.get('launcher', 'none') == 'none':
        config.strategy = dict(type='SingleDeviceStrategy')
        return
    strategy = config.setdefault('strategy', dict(type='DDPStrategy'))
    if get_device() != 'cpu' or strategy.type not in ON_CPU:
        return
    wrapper_type, device_argument, device = ON_CPU[strategy.type]
    if strategy.get('model_wrapper') is None:
        strategy.model_wrapper = dict(type=wrapper_type)
        if strategy.type == 'DDPStrategy':
            strategy.model_wrapper.broadcast_buffers = False  # as without a GPU number
    strategy.model_wrapper[device_argument] = device
