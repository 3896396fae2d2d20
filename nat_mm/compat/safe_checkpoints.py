"""Makes mmengine's loader work on PyTorch 2.6 and later without running code in checkpoints.

The official mmengine cannot read its own training state, since PyTorch allows only tensors and
plain containers. OneDL's fork rereads a rejected file with ``weights_only=False``, which runs the
code in it.
"""

import functools
from types import ModuleType

# No upper bound: code must not run in releases that have not been reviewed yet, either.
BROKEN_IN = {'mmengine': '>=0.10', 'torch': '>=2.6'}
UPSTREAM = 'https://github.com/open-mmlab/mmengine/issues/1655'
MODULES = ('mmengine.runner.checkpoint',)


def repair(module: ModuleType) -> None:
    """Makes CheckpointLoader read through :func:`nat_mm.checkpoints.reading.load_for_mmengine`.

    Args:
        module: ``mmengine.runner.checkpoint``.
    """
    import torch

    load = module.CheckpointLoader.load_checkpoint

    @functools.wraps(load)
    def load_checkpoint(filename, map_location=None, logger='current'):
        # Imported here because nat_mm needs mmengine to be fully imported.
        from nat_mm.checkpoints.reading import load_for_mmengine

        return load_for_mmengine(load, filename, map_location, logger)

    module.CheckpointLoader.load_checkpoint = staticmethod(load_checkpoint)
    if hasattr(module, '_safe_torch_load'):
        module._safe_torch_load = torch.load
