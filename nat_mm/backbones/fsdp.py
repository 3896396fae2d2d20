"""Policy by which FullyShardedDataParallel divides the backbones into units."""

from mmengine.registry import FUNCTIONS
from torch import nn

from nat_mm.layers import NATLayer


@FUNCTIONS.register_module()
def wrap_nat_layers(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """Wrapping policy for FSDP that makes each layer of NAT, DiNAT and DiNAT_s a unit.

    Wrapping by size would make units of whole stages. Their downsamplers run outside the stage's
    forward pass and would find no weights then.

    Args:
        module: Part of the model.
        recurse: Whether FSDP asks to recurse into ``module`` rather than to wrap it.
        nonwrapped_numel: Number of its parameters that are not in a unit yet.

    Returns:
        Whether to do so.
    """
    return recurse or isinstance(module, NATLayer)
