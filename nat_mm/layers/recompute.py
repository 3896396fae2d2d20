"""Less memory in training, for work that costs next to nothing on a CPU.

A GPU waits for the host meanwhile, which needs longer for this than for the layer: there it is off.
``NAT_MM_RECOMPUTE=1`` in the environment turns it on everywhere, ``NAT_MM_RECOMPUTE=0`` off.
"""

import os
from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

VARIABLE = 'NAT_MM_RECOMPUTE'


def read_setting() -> bool | None:
    """What the environment asks for; None for the device's default.

    Raises:
        ValueError: If the variable is neither '0' nor '1'.
    """
    value = os.environ.get(VARIABLE)
    if value not in (None, '0', '1'):
        raise ValueError(f"{VARIABLE} must be '0' or '1', got {value!r}")
    return None if value is None else value == '1'


_SETTING = read_setting()


def recompute_in_backward(
    function: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    *,
    random: bool = False,
) -> torch.Tensor:
    """Applies a cheap function that ends in a linear layer; on a CPU keeps only ``x`` for backward.

    A linear layer keeps its input. When that is merely a normalization or an activation of ``x``,
    which is kept as well, it is computed a second time in backward instead. Recomputation stops
    where all that backward needs is there, so the linear layer itself is not computed again.

    Args:
        function: What to apply.
        x: Its input, of any shape.
        random: Whether ``function`` draws random numbers, which must then come out the same.

    Returns:
        ``function(x)``.
    """
    wanted = x.device.type == 'cpu' if _SETTING is None else _SETTING
    if not (wanted and torch.is_grad_enabled()):
        return function(x)
    # The outputs are compared by nobody: the shapes' check would cost more than it can find.
    return checkpoint(
        function, x, use_reentrant=False, preserve_rng_state=random, determinism_check='none'
    )
