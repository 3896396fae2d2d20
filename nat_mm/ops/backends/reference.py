"""Plain attention on gathered neighbors: slow and memory-hungry, but defines what is correct."""

from __future__ import annotations

import torch
from torch import Tensor

from nat_mm.ops.validation import without_autocast
from nat_mm.ops.window import axis_window


def unsupported_reasons(
    query: Tensor, bias: Tensor | None, kernel_size: tuple[int, int]
) -> list[str]:
    """Supports everything."""
    return []


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    kernel_size: tuple[int, int],
    dilation: tuple[int, int],
    scale: float,
) -> Tensor:
    """Gathers every token's neighbors, then attends to them, in float32 or better."""
    with without_autocast(query.device.type):
        dtype = torch.promote_types(query.dtype, torch.float32)
        rows, relative_rows = axis_window(query.shape[1], kernel_size[0], dilation[0], query.device)
        columns, relative_columns = axis_window(
            query.shape[2], kernel_size[1], dilation[1], query.device
        )
        # [B, H, kh, W, kw, heads, head_dim]
        near_key = key.to(dtype)[:, rows][:, :, :, columns]
        near_value = value.to(dtype)[:, rows][:, :, :, columns]
        scores = scale * torch.einsum('bhwnd,bhiwjnd->bnhwij', query.to(dtype), near_key)
        if bias is not None:
            # [heads, H, kh, W, kw] -> [heads, H, W, kh, kw]
            near_bias = bias.to(dtype)[:, relative_rows][:, :, :, relative_columns]
            scores = scores + near_bias.transpose(2, 3)
        weights = scores.flatten(-2).softmax(dim=-1).view(scores.shape)
        output = torch.einsum('bnhwij,bhiwjnd->bhwnd', weights, near_value)
        return output.to(query.dtype).contiguous()
