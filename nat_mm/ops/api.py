"""The public functions of the operator, for maps and for sequences."""

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

    Along each axis the window of a token holds the tokens at multiples of ``dilation`` from it.
    At a border the window is shifted inwards, never truncated, so that every token has the same
    number of neighbors. See NAT, arXiv 2204.07143, and for dilation DiNAT, arXiv 2209.15001.

    Args:
        query: [B, H, W, heads, head_dim]; float16, bfloat16, float32 or float64, any strides.
        key: Shape, element type and device of ``query``.
        value: Shape, element type and device of ``query``.
        kernel_size: Odd window size of at least 3, for both axes or as (rows, columns). As a pair
            one of them may be 1: then tokens attend along the other axis only.
        dilation: Distance between neighbors, at least 1, for both axes or as (rows, columns).
            The map must hold a whole window: H >= kernel_size * dilation, likewise W.
        bias: Relative positional bias [heads, 2 * rows - 1, 2 * columns - 1] added to the scores,
            of any supported element type; entry (rows - 1, columns - 1) belongs to the token
            itself. None for no bias.
        scale: Factor on the query-key products; default ``head_dim ** -0.5``.
        backend: 'auto' takes the fastest backend that can serve the arguments; or the name of
            one: 'cpu', 'natten', 'triton', 'portable', 'reference'.

    Returns:
        The attended values, contiguous, with the shape and element type of ``query``; under
        autocast with autocast's element type.

    Raises:
        TypeError: If an argument is of the wrong type or element type.
        ValueError: If shapes do not fit, an option is out of range, or the named backend cannot
            serve the arguments (the message gives its reasons).
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

    It is :func:`neighborhood_attention_2d` on a map of one row, and served by the same backends.

    Args:
        query: [B, L, heads, head_dim]; float16, bfloat16, float32 or float64, any strides.
        key: Shape, element type and device of ``query``.
        value: Shape, element type and device of ``query``.
        kernel_size: Odd window size of at least 3.
        dilation: Distance between neighbors, at least 1. The sequence must hold a whole window:
            L >= kernel_size * dilation.
        bias: Relative positional bias [heads, 2 * kernel_size - 1] added to the scores, of any
            supported element type; entry kernel_size - 1 belongs to the token itself. None for no
            bias.
        scale: Factor on the query-key products; default ``head_dim ** -0.5``.
        backend: As for :func:`neighborhood_attention_2d`.

    Returns:
        The attended values, contiguous, with the shape and element type of ``query``; under
        autocast with autocast's element type.

    Raises:
        TypeError: If an argument is of the wrong type or element type.
        ValueError: If shapes do not fit, an option is out of range, or the named backend cannot
            serve the arguments (the message gives its reasons).
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
