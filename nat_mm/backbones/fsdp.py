"""How FullyShardedDataParallel cuts the backbones into units."""

from mmengine.registry import FUNCTIONS
from torch import nn

from nat_mm.layers import NATLayer


@FUNCTIONS.register_module()
def wrap_nat_layers(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """Policy of FSDP that makes each layer of NAT, DiNAT and DiNAT_s a unit.

    Units by size would be stages, whose downsamplers are run outside of them and would then find
    no weights.

    Args:
        module: Part of the model.
        recurse: Whether the question is to look into ``module``, not to make it a unit.
        nonwrapped_numel: Number of parameters in it that are in no unit yet.

    Returns:
        The answer.
    """
    return recurse or isinstance(module, NATLayer)
