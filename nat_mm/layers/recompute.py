"""Less memory in training, for work that costs next to nothing."""

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint


def recompute_in_backward(
    function: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    *,
    random: bool = False,
) -> torch.Tensor:
    """Applies a cheap function that ends in a linear layer, and keeps only ``x`` for backward.

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
    if not torch.is_grad_enabled():
        return function(x)
    # The outputs are compared by nobody: the shapes' check would cost more than it can find.
    return checkpoint(
        function, x, use_reentrant=False, preserve_rng_state=random, determinism_check='none'
    )
