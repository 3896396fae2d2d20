"""FLOP counts of neighborhood attention, for FLOP counters.

Counters see each backend's operator, with two exceptions: 'reference' consists of PyTorch's own
operators, which counters know already, and models on 'natten' are counted with another backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch

from nat_mm.ops.library import OPERATORS


def multiply_adds(query_shape: Sequence[int], kernel_size: Sequence[int]) -> int:
    """Returns the multiply-adds of a call: ``2 * rows * columns * head_dim`` per query and head.

    Counts the query-key products and the weighted sum of values, not the softmax, as fvcore and
    mmengine count attention.

    Args:
        query_shape: [B, H, W, heads, head_dim].
        kernel_size: (rows, columns).
    """
    return 2 * math.prod(kernel_size) * math.prod(query_shape)


def flop_handles() -> dict[str, Callable]:
    """Returns the handles with which fvcore's and mmengine's FLOP counters count the operator.

    These counters count a multiply-add as one. mmengine's has the handles once nat_mm is imported.

    Example:
        ``fvcore.nn.FlopCountAnalysis(model, inputs).set_op_handle(**flop_handles())``
    """
    return {f'nat_mm::{name}': _count_traced for name in OPERATORS}


def add_handles(analysis: ModuleType) -> None:
    """Gives mmengine's FLOP counter the handles.

    The activations that it also counts are, as those of PyTorch's operators, the outputs.

    Args:
        analysis: ``mmengine.analysis.complexity_analysis``.
    """
    handles = flop_handles()
    analysis._DEFAULT_SUPPORTED_FLOP_OPS.update(handles)
    activations = dict.fromkeys(handles, analysis.generic_activation_jit())
    analysis._DEFAULT_SUPPORTED_ACT_OPS.update(activations)


def flop_formulas() -> dict[Any, Callable]:
    """Returns the formulas with which PyTorch's FLOP counter counts the operator, both passes.

    PyTorch's counter counts a multiply-add as two.

    Example:
        ``FlopCounterMode(custom_mapping=flop_formulas())``
    """
    formulas: dict[Any, Callable] = {}
    for name in OPERATORS:
        formulas[getattr(torch.ops.nat_mm, name)] = _count_forward
        formulas[getattr(torch.ops.nat_mm, f'{name}_backward')] = _count_backward
    return formulas


def _count_traced(inputs: list[Any], outputs: list[Any]) -> int:
    # The inputs are values of a traced graph (torch._C.Value); kernel_size is a list of two
    # constants.
    kernel_size = [item.toIValue() for item in inputs[4].node().inputs()]
    return multiply_adds(inputs[0].type().sizes(), kernel_size)


def _count_forward(
    query: Sequence[int],
    key: Any,
    value: Any,
    bias: Any,
    kernel_size: Sequence[int],
    *rest: Any,
    out_shape: Any,
) -> int:
    return 2 * multiply_adds(query, kernel_size)


def _count_backward(
    grad_output: Any,
    query: Sequence[int],
    key: Any,
    value: Any,
    bias: Any,
    output: Any,
    statistics: Any,
    kernel_size: Sequence[int],
    *rest: Any,
    out_shape: Any,
) -> int:
    # Five products: the recomputed scores and the gradients of weights, query, key and value. The
    # forward pass has two.
    return 5 * multiply_adds(query, kernel_size)
