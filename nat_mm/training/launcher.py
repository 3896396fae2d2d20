"""Prepares a run for the launcher that started its processes, also on CPUs."""

import os
import signal

import torch.distributed
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device

from nat_mm.config.objects import type_name
from nat_mm.errors import UserError

VARIABLES = {
    'pytorch': ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
    'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    'mpi': ('OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE'),
}
RANKS = {'pytorch': 'RANK', 'slurm': 'SLURM_PROCID', 'mpi': 'OMPI_COMM_WORLD_RANK'}
STARTERS = {'pytorch': 'torchrun (see tools/dist_train.sh)', 'slurm': 'srun', 'mpi': 'mpirun'}
STRATEGIES_ON_CPU = {
    'DDPStrategy': ('MMDistributedDataParallel', 'device_ids', None),
    'FSDPStrategy': ('MMFullyShardedDataParallel', 'device_id', 'cpu'),
}
"""Model wrapper of each strategy, its argument for the device, and the value to pass."""


def prepare_launcher(config: Config) -> None:
    """Checks the launcher's variables and prepares processes without a GPU, unlike mmengine.

    Args:
        config: Config of the run; ``launcher`` is none, pytorch, slurm or mpi. Without a GPU, the
            config is changed to work there.

    Raises:
        UserError: If a variable is missing, because the command was not started by that launcher,
            or the launcher needs a GPU.
    """
    launcher = config.launcher
    if launcher != 'none':
        # When a process fails, its launcher ends the others, which wait for it in C++.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    missing = [name for name in VARIABLES.get(launcher, ()) if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher {launcher} needs the environment variables of {STARTERS[launcher]}, '
            f'but {", ".join(missing)} {"is" if len(missing) == 1 else "are"} not set'
        )
    try:
        prepare_distributed(config)
        prepare_strategy(config)
    except ValueError as error:
        raise UserError(str(error)) from error


def is_main_process(launcher: str) -> bool:
    """Returns whether this process is the first of those that the launcher started.

    Args:
        launcher: none, pytorch, slurm or mpi, with its variables checked by `prepare_launcher`.
    """
    return launcher == 'none' or os.environ[RANKS[launcher]] == '0'


def prepare_distributed(config: Config) -> None:
    """Makes ``config`` run with its launcher, also on CPUs; call this before Runner.from_cfg.

    mmengine supports only processes on GPUs. Without a GPU, this starts the gloo process group,
    requests DistributedDataParallel without device ids and replaces SyncBN, which needs a GPU, with
    BN. With a GPU, or with the launcher ``'none'``, ``config`` is unchanged.

    Args:
        config: Config of the run; ``launcher`` says how the processes were started. Modified in
            place.

    Raises:
        ValueError: If there is no GPU, and the launcher is neither ``'pytorch'`` nor ``'none'`` or
            an environment variable of torchrun is missing.
    """
    launcher = config.get('launcher', 'none')
    if launcher == 'none' or get_device() != 'cpu':
        return
    if launcher != 'pytorch':
        raise ValueError(
            f"launcher must be 'pytorch' or 'none' on a machine without a GPU, got {launcher!r}"
        )
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
    wrapper = config.get('model_wrapper_cfg') or ConfigDict(
        find_unused_parameters=config.get('find_unused_parameters', False),
        broadcast_buffers=False,
    )
    if wrapper.setdefault('type', 'MMDistributedDataParallel') == 'MMDistributedDataParallel':
        wrapper['device_ids'] = None
    config.model_wrapper_cfg = wrapper
    _replace_sync_bn(config.model)


def _replace_sync_bn(node: object) -> None:
    if isinstance(node, dict):
        if type_name(node) in ('SyncBN', 'SyncBatchNorm'):
            node['type'] = 'BN'
        for child in node.values():
            _replace_sync_bn(child)
    elif isinstance(node, list | tuple):
        for child in node:
            _replace_sync_bn(child)


def prepare_strategy(config: Config) -> None:
    """Makes the strategy of ``config`` work with its launcher, also on CPUs.

    Without a launcher, there is a single process, which needs no strategy; a model trained in
    several processes can thus be tested with the same config. On CPUs, where
    `prepare_distributed` has started the process group, the model wrapper is told not to use GPU
    ids.

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
    kind = type_name(strategy)
    if get_device() != 'cpu' or kind not in STRATEGIES_ON_CPU:
        return
    wrapper_type, device_argument, device = STRATEGIES_ON_CPU[kind]
    if strategy.get('model_wrapper') is None:
        strategy.model_wrapper = dict(type=wrapper_type)
        if kind == 'DDPStrategy':
            strategy.model_wrapper.broadcast_buffers = False  # as without a GPU id
    strategy.model_wrapper[device_argument] = device
