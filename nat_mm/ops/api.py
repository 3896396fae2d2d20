"""The operator's public functions, for feature maps and for sequences."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nat_mm.ops.backends import BACKENDS, choose_backend
from nat_mm.ops.validation import (
    cast_for_autocast,
    check_dilation,
    check_int,
    check_kernel_size,
    check_scale,
    check_tensors,
    check_window_length,
)


def neighborhood_attention_2d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    kernel_size: int | Sequence[int],
    dilation: int | Sequence[int] = 1,
    bias: Tensor | None = None,
    scale: float | None = None,
    backend: str = 'auto',
) -> Tensor:
    """Attention of each token to its ``kernel_size`` x ``kernel_size`` nearest tokens.

    Along each axis, a token's window contains the tokens at multiples of ``dilation`` from it. At a
    border, the window is shifted inward and never truncated, so every token has the same number of
    neighbors. See NAT (arXiv 2204.07143) and, for dilation, DiNAT (arXiv 2209.15001).

    Args:
        query: [B, H, W, heads, head_dim]; float16, bfloat16, float32 or float64, any strides.
        key: Same shape, dtype and device as ``query``.
        value: Same shape, dtype and device as ``query``.
        kernel_size: Odd window size of at least 3, for both axes or as (rows, columns). One of a
            pair may be 1; tokens then attend only along the other axis.
        dilation: Distance between neighbors, at least 1, for both axes or as (rows, columns).
            The map must fit a whole window: H and W >= kernel_size * dilation.
        bias: Relative positional bias [heads, 2 * rows - 1, 2 * columns - 1] added to the scores,
            of any supported dtype; entry (rows - 1, columns - 1) is for the token itself. None
            for no bias.
        scale: Factor on the query-key products; defaults to ``head_dim ** -0.5``.
        backend: 'auto' for the fastest backend that supports the arguments, or one of 'cpu',
            'natten', 'triton', 'portable' and 'reference'.

    Returns:
        The attended values, contiguous, with the shape and dtype of ``query`` or, under autocast,
        with autocast's dtype.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes do not match, an option is out of range, or the named backend does not
            support the arguments (the message says why).
    """
    kernel_size = check_kernel_size(kernel_size)
    dilation = check_dilation(dilation)
    check_tensors(query, key, value, bias, kernel_size, dilation)
    scale = check_scale(scale, query.shape[-1])
    query, key, value = cast_for_autocast(query, key, value)
    name = choose_backend(backend, query, bias, kernel_size)
    return BACKENDS[name].forward(query, key, value, bias, kernel_size, dilation, scale)


def neighborhood_attention_1d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    kernel_size: int,
    dilation: int = 1,
    bias: Tensor | None = None,
    scale: float | None = None,
    backend: str = 'auto',
) -> Tensor:
    """Attention of each token of a sequence to its ``kernel_size`` nearest tokens.

    Equivalent to :func:`neighborhood_attention_2d` on a map with one row, with the same backends.

    Args:
        query: [B, L, heads, head_dim]; float16, bfloat16, float32 or float64, any strides.
        key: Same shape, dtype and device as ``query``.
        value: Same shape, dtype and device as ``query``.
        kernel_size: Odd window size of at least 3.
        dilation: Distance between neighbors, at least 1. The sequence must fit a whole window: L >=
            kernel_size * dilation.
        bias: Relative positional bias [heads, 2 * kernel_size - 1] added to the scores, of any
            supported dtype; entry kernel_size - 1 is for the token itself. None for no bias.
        scale: Factor on the query-key products; defaults to ``head_dim ** -0.5``.
        backend: As for :func:`neighborhood_attention_2d`.

    Returns:
        The attended values, contiguous, with the shape and dtype of ``query`` or, under autocast,
        with autocast's dtype.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If shapes do not match, an option is out of range, or the named backend does not
            support the arguments (the message says why).
    """
    check_window_length(kernel_size)
    check_int('dilation', dilation, minimum=1)
    check_tensors(query, key, value, bias, (kernel_size,), (dilation,))
    output = neighborhood_attention_2d(
        query[:, None],
        key[:, None],
        value[:, None],
        kernel_size=(1, kernel_size),
        dilation=(1, dilation),
        bias=None if bias is None else bias[:, None],
        scale=scale,
        backend=backend,
    )
    return output[:, 0]
