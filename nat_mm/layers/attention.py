"""Neighborhood attention as a module: projections around the operator."""

import logging

import torch
from torch import nn

from nat_mm.layers.checks import check_int, check_kernel_size
from nat_mm.layers.recompute import recompute_in_backward
from nat_mm.layers.rpb import is_resizable_rpb, resize_rpb
from nat_mm.layers.small_maps import crop_map, pad_small_map
from nat_mm.ops import neighborhood_attention_2d
from nat_mm.ops.backends import BACKENDS
from nat_mm.ops.packing import unpack


class NeighborhoodAttention2D(nn.Module):
    """Multi-head self-attention of each token to its k x k nearest (dilated) tokens.

    Neighborhood Attention Transformer (arXiv 2204.07143) and Dilated Neighborhood Attention
    Transformer (arXiv 2209.15001). A map smaller than ``kernel_size * dilation`` on an axis is
    zero-padded on the right or bottom up to that length before the projection to query, key and
    value, and the result is cropped; the released checkpoints were trained that way.

    Loading a state dict whose ``rpb`` belongs to another kernel size resizes that table.

    Args:
        channels: Number of channels C; a multiple of ``num_heads``.
        num_heads: Number of attention heads.
        kernel_size: Odd window length k, at least 3, the same on both axes.
        dilation: Step between neighbours, at least 1.
        qkv_bias: Whether the projection to query, key and value has a bias.
        relative_position_bias: Whether to learn ``rpb``, ``[num_heads, 2k - 1, 2k - 1]``, a bias
            on the scores by relative position; otherwise ``rpb`` is None.
        drop_rate: Dropout probability after the output projection, in [0, 1).
        backend: Backend of :func:`nat_mm.ops.neighborhood_attention_2d`.

    Raises:
        TypeError: If an integer argument is not an int.
        ValueError: If a number is out of its range, ``num_heads`` does not divide ``channels`` or
            there is no such backend.
    """

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
        super().__init__()
        check_kernel_size(kernel_size)
        check_int('dilation', dilation, minimum=1)
        check_int('num_heads', num_heads, minimum=1)
        check_int('channels', channels, minimum=1)
        if channels % num_heads:
            raise ValueError(
                f'num_heads must divide channels, but {num_heads} does not divide {channels}'
            )
        if backend not in ('auto', *BACKENDS):
            known = ', '.join(('auto', *BACKENDS))
            raise ValueError(f'the attention backend must be one of {known}, got {backend!r}')
        self.num_heads = num_heads
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.scale = (channels // num_heads) ** -0.5
        self.backend = backend

        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        if relative_position_bias:
            table_length = 2 * kernel_size - 1
            self.rpb = nn.Parameter(torch.empty(num_heads, table_length, table_length))
            nn.init.trunc_normal_(self.rpb, std=0.02)
        else:
            self.register_parameter('rpb', None)
        self.proj = nn.Linear(channels, channels)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: torch.Tensor, *, norm: nn.Module | None = None) -> torch.Tensor:
        """Attends within neighborhoods.

        Args:
            x: Map of any height and width, ``[B, H, W, C]``.
            norm: Applied to ``x`` first, if given; in training on a CPU its output is not kept in
                memory but computed again in backward.

        Returns:
            Map of the same shape.
        """
        _, height, width, channels = x.shape
        if norm is None:
            qkv = self._project(x)
        else:
            qkv = recompute_in_backward(lambda x: self._project(norm(x)), x)
        # [B, H, W, 3, heads, head_dim]: query, key and value stay strided views of it
        qkv = qkv.view(*qkv.shape[:3], 3, self.num_heads, channels // self.num_heads)
        query, key, value = unpack(qkv)
        x = neighborhood_attention_2d(
            query,
            key,
            value,
            kernel_size=self.kernel_size,
            dilation=self.dilation,
            bias=self.rpb,
            scale=self.scale,
            backend=self.backend,
        )
        return self.drop(crop_map(self.proj(x.flatten(3)), height, width))

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        return self.qkv(pad_small_map(x, self.kernel_size * self.dilation))

    def extra_repr(self) -> str:
        return (
            f'num_heads={self.num_heads}, kernel_size={self.kernel_size}, '
            f'dilation={self.dilation}, backend={self.backend!r}'
        )

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        key = prefix + 'rpb'
        table = state_dict.get(key)
        if self.rpb is not None and table is not None and table.shape != self.rpb.shape:
            if is_resizable_rpb(table.shape, self.rpb.shape):
                state_dict[key] = resize_rpb(table, self.kernel_size)
                source = (table.shape[-1] + 1) // 2
                _log(
                    f'{key}: relative position bias resized from kernel size {source} '
                    f'to {self.kernel_size} by bicubic interpolation'
                )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _log(line: str) -> None:
    """To the log of OpenMMLab's runner where there is mmengine."""
    try:
        from mmengine.logging import print_log
    except ImportError:
        logging.getLogger(__name__).info(line)
    else:
        print_log(line, logger='current')
