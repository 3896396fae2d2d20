"""The transformer layer of NAT, DiNAT and DiNAT_s."""

import torch
from torch import nn

from nat_mm.layers.attention import NeighborhoodAttention2D
from nat_mm.layers.mlp import Mlp


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): which samples of a batch keep a residual branch.

    Args:
        p: Probability that a sample loses its branch, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        """Factors on ``[B, H, W, C]``, ``[B, 1, 1, 1]``: 0 or, on average 1, ``1 / (1 - p)``."""
        kept = branch.new_empty(len(branch), 1, 1, 1)
        return kept.bernoulli_(1 - self.p).div_(1 - self.p)

    def extra_repr(self) -> str:
        return f'p={self.p}'


class NATLayer(nn.Module):
    """Pre-norm neighborhood attention and MLP, each with a residual connection.

    The sums overwrite the branches' outputs: a forward hook on ``attn`` or ``mlp`` that keeps its
    module's output must clone it.

    Args:
        channels: Number of channels C.
        num_heads: Number of attention heads; divides ``channels``.
        kernel_size: Odd window length, at least 3.
        dilation: Step between neighbours, at least 1.
        mlp_ratio: Hidden channels of the MLP as a multiple of C.
        qkv_bias: Whether the projection to query, key and value has a bias.
        relative_position_bias: Whether attention scores get a learnt relative position bias.
        drop_rate: Dropout probability in the MLP and after attention, in [0, 1).
        drop_path_rate: Probability of dropping a residual branch of a sample (stochastic depth,
            arXiv 1603.09382), in [0, 1).
        layer_scale: Initial value of the learnt scale per channel of each residual branch
            (``gamma1``, ``gamma2``; arXiv 2103.17239), or None for no such scale.
        attention_backend: Backend of :func:`nat_mm.ops.neighborhood_attention_2d`.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        *,
        kernel_size: int = 7,
        dilation: int = 1,
        mlp_ratio: float = 3.0,
        qkv_bias: bool = True,
        relative_position_bias: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale: float | None = None,
        attention_backend: str = 'auto',
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = NeighborhoodAttention2D(
            channels,
            num_heads,
            kernel_size=kernel_size,
            dilation=dilation,
            qkv_bias=qkv_bias,
            relative_position_bias=relative_position_bias,
            drop_rate=drop_rate,
            backend=attention_backend,
        )
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, int(channels * mlp_ratio), drop_rate=drop_rate)
        self.drop_path = DropPath(drop_path_rate)
        if layer_scale is None:
            self.register_parameter('gamma1', None)
            self.register_parameter('gamma2', None)
        else:
            self.gamma1 = nn.Parameter(torch.full((channels,), float(layer_scale)))
            self.gamma2 = nn.Parameter(torch.full((channels,), float(layer_scale)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``[B, H, W, C]`` to the same shape."""
        x = self._add_residual(x, self.attn(x, norm=self.norm1), self.gamma1)
        return self._add_residual(x, self.mlp(x, norm=self.norm2), self.gamma2)

    def _add_residual(
        self, x: torch.Tensor, branch: torch.Tensor, gamma: torch.Tensor | None
    ) -> torch.Tensor:
        scale = gamma
        if self.training and self.drop_path.p > 0:
            kept = self.drop_path(branch)
            scale = kept if gamma is None else kept * gamma
        if scale is not None:
            return torch.addcmul(x, branch, scale)  # in one pass over memory
        if branch.dtype != x.dtype:  # under autocast
            return x + branch
        # Fresh memory costs more than an addition, and backward needs nothing that ends a branch.
        return branch.add_(x)
