"""Attention weights over each token's neighbors, for inspection and visualization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nat_mm.ops.validation import (
    cast_for_autocast,
    check_dilation,
    check_kernel_size,
    check_scale,
    check_tensors,
    without_autocast,
)
from nat_mm.ops.window import axis_window

# Bounds the memory for the gathered keys, which take head_dim times as much as the weights.
_TOKENS_AT_ONCE = 4096


def neighborhood_attention_weights(
    query: Tensor,
    key: Tensor,
    *,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    bias: Tensor | None = None,
    scale: float | None = None,
    positions: Tensor | Sequence[Sequence[int]] | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the softmax weights of the tokens over their neighbors, and the neighbors' positions.

    These are the weights of `nat_mm.ops.neighborhood_attention_2d` with the same arguments, for any
    backend: summing ``weights * value[neighbor]`` over a token's neighbors gives its output. They
    are computed here because no backend returns them; the fast ones never store them.

    Args:
        query: [B, H, W, heads, head_dim]; float16, bfloat16, float32 or float64, any strides.
        key: Same shape, dtype and device as ``query``.
        kernel_size: Odd window size of at least 3, for both axes or as (rows, columns) = (kh, kw).
            One of a pair may be 1.
        dilation: Distance between neighbors, at least 1, for both axes or as (rows, columns).
            The map must fit a whole window: H >= kh * dilation and W >= kw * dilation.
        bias: Relative positional bias [heads, 2 * kh - 1, 2 * kw - 1] added to the scores, or None.
        scale: Factor on the query-key products; defaults to ``head_dim ** -0.5``.
        positions: The query tokens, [N, 2] integers (row, column); None for all.

    Returns:
        ``(weights, neighbors)``. ``weights`` are [B, N, heads, kh * kw], or without ``positions``
        [B, H, W, heads, kh * kw]; float64 for float64 arguments, otherwise float32; they sum to 1
        over the last axis and are differentiable. ``neighbors`` are the positions of the neighbors,
        int64 (row, column), [N, kh * kw, 2] or [H, W, kh * kw, 2], row by row.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes do not match, an option is out of range, or a position is not on the
            map.
    """
    kernel_size = check_kernel_size(kernel_size)
    dilation = check_dilation(dilation)
    check_tensors(query, key, key, bias, kernel_size, dilation)
    scale = check_scale(scale, query.shape[-1])
    height, width = query.shape[1:3]
    if positions is None:
        tokens = torch.cartesian_prod(
            torch.arange(height, device=query.device), torch.arange(width, device=query.device)
        )
    else:
        tokens = _check_positions(positions, height, width).to(query.device)
    query, key = cast_for_autocast(query, key)

    neighbors, relative = _windows(tokens, (height, width), kernel_size, dilation)
    dtype = torch.promote_types(query.dtype, torch.float32)
    near_bias = None
    if bias is not None:
        # [heads, N, kh * kw] -> [N, heads, kh * kw]
        near_bias = bias.to(dtype)[:, relative[..., 0], relative[..., 1]].transpose(0, 1)
    parts = []
    with without_autocast(query.device.type):
        for start in range(0, max(len(tokens), 1), _TOKENS_AT_ONCE):
            part = slice(start, start + _TOKENS_AT_ONCE)
            own = query[:, tokens[part, 0], tokens[part, 1]].to(dtype)
            near = key[:, neighbors[part, :, 0], neighbors[part, :, 1]].to(dtype)
            scores = scale * torch.einsum('bnhd,bnkhd->bnhk', own, near)
            if near_bias is not None:
                scores = scores + near_bias[part]
            parts.append(scores.softmax(dim=-1))
    weights = torch.cat(parts, dim=1)
    if positions is None:
        weights = weights.unflatten(1, (height, width))
        neighbors = neighbors.unflatten(0, (height, width))
    return weights, neighbors


def _windows(
    tokens: Tensor, shape: tuple[int, int], kernel_size: tuple[int, int], dilation: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Returns the neighbors' positions for tokens [N, 2], and their entries in the bias table.

    Returns:
        Both [N, kh * kw, 2], (row, column), row by row.
    """
    row_tables, column_tables = (
        axis_window(length, size, step, tokens.device)
        for length, size, step in zip(shape, kernel_size, dilation, strict=True)
    )
    neighbors, relative = (
        torch.stack(
            torch.broadcast_tensors(
                row_table[tokens[:, 0], :, None], column_table[tokens[:, 1], None, :]
            ),
            dim=-1,
        ).flatten(1, 2)
        for row_table, column_table in zip(row_tables, column_tables, strict=True)
    )
    return neighbors, relative


def _check_positions(positions: Tensor | Sequence, height: int, width: int) -> Tensor:
    try:
        tokens = torch.as_tensor(positions)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f'positions must be [N, 2] integers (row, column): {error}') from error
    if tokens.numel() == 0:
        tokens = tokens.reshape(0, 2).long()
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise TypeError(f'positions must be integers (row, column), got {tokens.dtype}')
    if tokens.ndim != 2 or tokens.shape[1] != 2:
        raise ValueError(
            f'positions must have shape [N, 2], (row, column) of each, got {list(tokens.shape)}'
        )
    tokens = tokens.long()  # not every integer type can be compared
    outside = (tokens < 0).any(1) | (tokens >= tokens.new_tensor([height, width])).any(1)
    if outside.any():
        raise ValueError(
            f'positions must lie on the map, rows below {height} and columns below {width}, '
            f'got {tokens[outside][0].tolist()}'
        )
    return tokens
