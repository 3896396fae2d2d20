"""Relative positional bias for attention kernels that do not support one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nat_mm.ops.window import axis_window


def fold_bias(
    query: Tensor,
    key: Tensor,
    bias: Tensor,
    *,
    kernel_size: tuple[int, int],
    dilation: tuple[int, int],
    scale: float,
    multiple_of: int = 8,
) -> tuple[Tensor, Tensor]:
    """Moves the bias into extra channels of query and key.

    Along each axis, a window contains k consecutive tokens of a residue class. Their indices in
    that class all differ modulo k, so a one-hot vector over (row mod kh, column mod kw)
    distinguishes the neighbors of a query. Each key gets its own one-hot vector, and each query
    gets its neighbors' biases in the same order, divided by ``scale``. Then ``scale * (q . k)`` of
    the results equals ``scale * (q . k) + bias`` of the arguments for every query and each of its
    neighbors, and autograd computes the gradient of the bias.

    Args:
        query: [B, H, W, heads, D].
        key: [B, H, W, heads, D].
        bias: [heads, 2 * kh - 1, 2 * kw - 1].
        kernel_size: (kh, kw), odd.
        dilation: Distance between neighbors along each axis.
        scale: Factor that attention applies to the query-key products.
        multiple_of: The channels of the result are padded with zeros to a multiple of this.

    Returns:
        Query and key, [B, H, W, heads, D + kh * kw (+ padding)], each with its own dtype.
    """
    batch, height, width, heads, head_dim = query.shape
    channels = kernel_size[0] * kernel_size[1]
    padding = -(head_dim + channels) % multiple_of
    row_entry, row_one_hot = _axis_channels(height, kernel_size[0], dilation[0], query.device)
    column_entry, column_one_hot = _axis_channels(width, kernel_size[1], dilation[1], query.device)
    # [heads, H, kh, W, kw] -> [H, W, heads, kh * kw]
    own = bias[:, row_entry][:, :, :, column_entry].permute(1, 3, 0, 2, 4)
    own = (own.reshape(height, width, heads, channels) / scale).to(query.dtype)
    one_hot = row_one_hot[:, None, :, None] & column_one_hot[None, :, None, :]
    one_hot = one_hot.reshape(height, width, 1, channels).to(key.dtype)
    shape = (batch, height, width, heads, channels + padding)
    own, one_hot = (F.pad(extra, (0, padding)).expand(shape) for extra in (own, one_hot))
    return torch.cat((query, own), dim=-1), torch.cat((key, one_hot), dim=-1)


def _axis_channels(
    length: int, kernel_size: int, dilation: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Returns the extra channels of queries and keys for one axis, both [length, kernel_size].

    Returns:
        For each c, the bias table's entry for the neighbor whose index in its residue class is c
        modulo ``kernel_size``; and the one-hot vector of the token's own index.
    """
    neighbors, relative = axis_window(length, kernel_size, dilation, device)
    order = (neighbors // dilation % kernel_size).argsort(dim=1)
    own = torch.arange(length, device=device) // dilation % kernel_size
    one_hot = own[:, None] == torch.arange(kernel_size, device=device)
    return relative.gather(1, order), one_hot
