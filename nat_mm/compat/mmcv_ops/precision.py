"""Precision of the replacements' computations."""

import torch
from torch import Tensor


def at_least_fp32(tensor: Tensor) -> Tensor:
    """Return ``tensor`` in fp32 if it is fp16 or bf16, otherwise unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
