"""Makes mmengine's FlexibleRunner and its strategies work without a GPU as well."""

from mmengine.config import Config
from mmengine.device import get_device

ON_CPU = {
    'DDPStrategy': ('MMDistributedDataParallel', 'device_ids', None),
    'FSDPStrategy': ('MMFullyShardedDataParallel', 'device_id', 'cpu'),
}
"""Model wrapper of each strategy, its argument for the device, and the value to pass."""


def prepare_strategy(config: Config) -> None:
    """Makes the strategy of ``config`` work with its launcher, also on CPUs.

    Without a launcher, there is a single process, which needs no strategy; a model trained in
    several processes can thus be tested with the same config. On CPUs, where
    :func:`nat_mm.training.distributed.prepare_distributed` has started the process group, the model
    wrapper is told not to use GPU ids.

    Args:
        config: Config of the run; ``launcher`` says how the processes were started. Modified in
            place.
    """
    if config.get('runner_type') != 'FlexibleRunner':
        return
    # Unlike Runner, FlexibleRunner requires env_cfg, and in tests loads the weights of init_cfg
    # first.
    config.setdefault('env_cfg', dict(dist_cfg=dict(backend='nccl')))
    config.setdefault('init_weights_for_test_or_val', False)
    if config.get('launcher', 'none') == 'none':
        config.strategy = dict(type='SingleDeviceStrategy')
        return
    strategy = config.setdefault('strategy', dict(type='DDPStrategy'))
    kind = strategy.get('type')
    if get_device() != 'cpu' or kind not in ON_CPU:
        return
    wrapper_type, device_argument, device = ON_CPU[kind]
    if strategy.get('model_wrapper') is None:
        strategy.model_wrapper = dict(type=wrapper_type)
        if kind == 'DDPStrategy':
            strategy.model_wrapper.broadcast_buffers = False  # as without a GPU id
    strategy.model_wrapper[device_argument] = device
