"""Neighborhood attention, and stand-alone self-attention by the same operator."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from nat_mm.layers.multi_head_attention import MultiHeadAttention2D
from nat_mm.layers.recomputation import recomputable, recompute_in_backward
from nat_mm.ops import neighborhood_attention_2d
from nat_mm.ops.backends import BACKENDS
from nat_mm.ops.packing import unpack
from nat_mm.ops.validation import check_int, check_window_length


class NeighborhoodAttention2D(MultiHeadAttention2D):
    """Multi-head self-attention of each token to its k x k nearest tokens, optionally dilated.

    Neighborhood Attention Transformer (arXiv 2204.07143) and Dilated Neighborhood Attention
    Transformer (arXiv 2209.15001). A map smaller than ``kernel_size * dilation`` along an axis is
    zero-padded to that length at the right or bottom before the projection to query, key and value,
    and the result is cropped. The released checkpoints were trained this way.

    Loading a state dict whose ``rpb`` belongs to another kernel size resizes that table.

    Args:
        channels: Number of channels C; a multiple of ``num_heads``.
        num_heads: Number of attention heads.
        kernel_size: Odd window length k, at least 3, the same for both axes.
        dilation: Step between neighbors, at least 1.
        qkv_bias: Whether the projection to query, key and value has a bias.
        relative_position_bias: Whether to learn ``rpb``, ``[num_heads, 2k - 1, 2k - 1]``, a bias
            on the scores by relative position; otherwise ``rpb`` is None.
        drop_rate: Dropout probability after the output projection, in [0, 1).
        backend: Backend of :func:`nat_mm.ops.neighborhood_attention_2d`.

    Raises:
        TypeError: If an integer argument is not an int or a flag not a bool.
        ValueError: If a number is out of its range, ``num_heads`` does not divide ``channels`` or
            there is no such backend.
    """

    length_name = 'kernel size'

    def __init__(
        self,
        channels: int,
        num_heads: int,
        *,
        kernel_size: int = 7,
        dilation: int = 1,
        qkv_bias: bool = True,
        relative_position_bias: bool = True,
        drop_rate: float = 0.0,
        backend: str = 'auto',
    ) -> None:
        check_window_length(kernel_size)
        check_int('dilation', dilation, minimum=1)
        if backend not in ('auto', *BACKENDS):
            known = ', '.join(('auto', *BACKENDS))
            raise ValueError(f'the attention backend must be one of {known}, got {backend!r}')
        super().__init__(
            channels,
            num_heads,
            kernel_size,
            qkv_bias=qkv_bias,
            relative_position_bias=relative_position_bias,
            drop_rate=drop_rate,
        )
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.scale = (channels // num_heads) ** -0.5
        self.backend = backend

    @recompute_in_backward
    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[B, H, W, C]`` of any height and width to the same shape."""
        _, height, width, channels = x.shape
        x = recomputable(self._pad, x)
        # [B, H, W, 3, heads, head_dim], of which query, key and value stay strided views
        qkv = self.qkv(x).view(*x.shape[:3], 3, self.num_heads, channels // self.num_heads)
        x = self._attend(*unpack(qkv))
        return self.drop(_crop_map(self.proj(x.flatten(3)), height, width))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return neighborhood_attention_2d(
            query,
            key,
            value,
            kernel_size=self.kernel_size,
            dilation=self.dilation,
            bias=self.rpb,
            scale=self.scale,
            backend=self.backend,
        )

    def _pad(self, x: Tensor) -> Tensor:
        return _pad_small_map(x, self.kernel_size * self.dilation)

    def extra_repr(self) -> str:
        """Returns the main options, for ``print(model)``."""
        return (
            f'num_heads={self.num_heads}, kernel_size={self.kernel_size}, '
            f'dilation={self.dilation}, backend={self.backend!r}'
        )


class StandAloneAttention2D(NeighborhoodAttention2D):
    """Multi-head self-attention of each token to the k x k tokens around it, optionally dilated.

    Stand-alone self-attention (SASA, arXiv 1906.05909). It differs from neighborhood attention at
    borders, where windows are not shifted inward: keys and values are zero beyond a border, as in a
    padded convolution. These keys take part in the softmax, with only the relative positional bias
    as their score. For the arguments, see :class:`NeighborhoodAttention2D`.

    The operator runs on a map with a margin of zeros, so that no token's window reaches a border,
    and every backend supports this pattern. The results for the margin itself are discarded.
    """

    def _pad(self, x: Tensor) -> Tensor:
        return x

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        _, height, width, _, _ = query.shape
        margin = self.dilation * (self.kernel_size // 2)
        # With dilation, a small map needs more than the margin to fit a window.
        bottom, right = (
            max(margin, self.kernel_size * self.dilation - margin - length)
            for length in (height, width)
        )
        query, key, value = (
            pad(part, (0, 0, 0, 0, margin, right, margin, bottom)) for part in (query, key, value)
        )
        attended = super()._attend(query, key, value)
        return attended[:, margin : margin + height, margin : margin + width]


# A compiled or exported graph always pads and crops, by zero if necessary: a branch on the size
# would tie the graph to certain sizes. A compiler fuses these operations away.


def _pad_small_map(x: Tensor, smallest: int) -> Tensor:
    """Appends zeros at the right and bottom of a map that is too small.

    Args:
        x: Map, ``[B, H, W, C]``.
        smallest: Minimum height and width of the result.

    Returns:
        ``[B, max(H, smallest), max(W, smallest), C]``; ``x`` itself if that is large enough.
    """
    _, height, width, _ = x.shape
    bottom: Any
    right: Any  # int, or SymInt in a compiled graph
    is_compiling = torch.compiler.is_compiling()
    if not is_compiling and height >= smallest and width >= smallest:
        return x
    # In an export, max would need to know sizes that are unknown. The compiler supports max, but
    # before PyTorch 2.12 not sym_max of known sizes.
    is_exporting = is_compiling and not torch.compiler.is_dynamo_compiling()
    larger = torch.sym_max if is_exporting else max
    bottom, right = (larger(0, smallest - length) for length in (height, width))
    return pad(x, (0, 0, 0, right, 0, bottom))


def _crop_map(x: Tensor, height: int, width: int) -> Tensor:
    """Returns the upper left ``[B, height, width, C]`` of a contiguous map, contiguous as well."""
    if torch.compiler.is_compiling():
        # Whether a slice is contiguous depends on the size; the result of padding always is.
        return pad(x, (0, 0, 0, width - x.shape[2], 0, height - x.shape[1]))
    return x[:, :height, :width].contiguous()
