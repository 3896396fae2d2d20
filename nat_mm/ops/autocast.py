"""Autocast's rule for the operator."""

from __future__ import annotations

import torch
from torch import Tensor


def cast_for_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Casts query, key and value to autocast's element type where autocast is on.

    float64 is left alone, as PyTorch's own autocast does. The bias is not to be passed: it stays
    in full precision, since every backend adds it to scores of at least float32.
    """
    device = tensors[0].device.type
    # PyTorch 2.9 cannot compile is_autocast_available; of the devices used here, meta has none.
    if device == 'meta' or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(
        tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in tensors
    )
