"""Enables distributed training and testing without a GPU."""

import torch.distributed
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device


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
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'
        for child in node.values():
            _replace_sync_bn(child)
    elif isinstance(node, list | tuple):
        for child in node:
            _replace_sync_bn(child)
