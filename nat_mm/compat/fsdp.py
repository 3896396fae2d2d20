"""Repairs resuming and gradient clipping with mmengine's FSDPStrategy on current PyTorch."""

import functools
from types import ModuleType

from nat_mm.compat import NOT_REPORTED

BROKEN_IN = {'mmengine': '<0.11'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmengine._strategy.fsdp',)


def repair(module: ModuleType) -> None:
    """Replaces the broken methods of mmengine's FSDPStrategy.

    Args:
        module: ``mmengine._strategy.fsdp``.
    """
    from mmengine.device import get_device
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.nn.utils import clip_grad_norm_

    strategy_class = module.FSDPStrategy
    prepare = strategy_class.prepare

    @functools.wraps(strategy_class.load_optim_state_dict)
    def load_optim_state_dict(self, state_dict: dict) -> None:
        # PyTorch changed the order of these arguments.
        shard = FullyShardedDataParallel.optim_state_dict_to_load(
            model=self.model, optim=self.optim_wrapper.optimizer, optim_state_dict=state_dict
        )
        self.optim_wrapper.load_state_dict(shard)

    @functools.wraps(prepare)
    def prepare_repaired(self, *args, **kwargs):
        if get_device() == 'cpu':
            # Offloading from CPU to CPU copies nothing. The optimizer state would share memory with
            # that of other parameters, which PyTorch then overwrites, and the offloaded weights
            # would share memory that PyTorch 2.9 frees before it reads them.
            self.optim_state_dict_config.offload_to_cpu = False
            self.state_dict_config.offload_to_cpu = False
        prepared = prepare(self, *args, **kwargs)
        wrapper = getattr(self, 'optim_wrapper', None)
        if getattr(wrapper, 'clip_func', None) is clip_grad_norm_:
            # Otherwise, each process would clip its shards by their own norm.
            wrapper.clip_func = lambda parameters, **options: self.model.clip_grad_norm_(**options)
        return prepared

    strategy_class.load_optim_state_dict = load_optim_state_dict
    strategy_class.prepare = prepare_repaired
