"""Neighborhood attention for FLOP counters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

OPERATORS = ('nat_mm::na2d_cpu', 'nat_mm::na2d_portable')


def neighborhood_attention_flops(inputs: list[Any], outputs: list[Any]) -> int:
    """Multiply-adds of one call: ``2 * kh * kw * head_dim`` for each query and head.

    Counts the query-key products and the weighted sum of values, not the softmax, as fvcore and
    mmengine count attention.

    Args:
        inputs: The traced call's inputs (``torch._C.Value``); query [B, H, W, heads, head_dim]
            comes first; fifth comes kernel_size, a list built of two constants.
        outputs: The traced call's outputs.
    """
    queries_and_channels = 1
    for size in inputs[0].type().sizes():
        queries_and_channels *= size
    rows, columns = (item.toIValue() for item in inputs[4].node().inputs())
    return 2 * rows * columns * queries_and_channels


def flop_handles() -> dict[str, Callable]:
    """Handles that make fvcore's and mmengine's FLOP counters see the operator.

    Example:
        ``FlopAnalyzer(model, inputs).set_op_handle(**flop_handles())``
    """
    return dict.fromkeys(OPERATORS, neighborhood_attention_flops)
