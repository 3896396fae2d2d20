"""The transformer layer of NAT, DiNAT and DiNAT_s, and its parts except for attention."""

import functools
from typing import Any

import torch
from torch import Tensor, nn

from nat_mm.layers.neighborhood_attention import NeighborhoodAttention2D, StandAloneAttention2D
from nat_mm.layers.recomputation import (
    GELU,
    LayerNorm,
    recomputable,
    recompute_in_backward,
    split_tokens,
)
from nat_mm.layers.self_attention import SelfAttention2D
from nat_mm.layers.shifted_window_attention import ShiftedWindowAttention2D
from nat_mm.ops.validation import check_bool, check_positive, check_probability, check_window_length

ATTENTION_PATTERNS = ('neighborhood', 'sasa', 'shifted_window', 'full')
"""What a layer's tokens can attend to; all patterns have parameters with the same names and shapes:

- 'neighborhood': their k x k nearest tokens (NAT, arXiv 2204.07143).
- 'sasa': the k x k window around them, zero beyond borders (stand-alone self-attention,
  arXiv 1906.05909).
- 'shifted_window': the k x k tokens of their window; every second layer shifts the windows
  (Swin, arXiv 2103.14030).
- 'full': all tokens.
"""


class NATLayer(nn.Module):
    """Pre-norm attention and MLP, each with a residual connection.

    Args:
        channels: Number of channels C.
        num_heads: Number of attention heads; divides ``channels``.
        kernel_size: Odd window length, at least 3; for 'full', length of the maps for which the
            biases are exact, at least 1 (see `SelfAttention2D`).
        dilation: Step between neighbors, at least 1.
        mlp_ratio: Hidden channels of the MLP as a multiple of C.
        qkv_bias: Whether the projection to query, key and value has a bias.
        relative_position_bias: Whether attention scores get a learned relative positional bias.
        drop_rate: Dropout probability in the MLP and after attention, in [0, 1).
        drop_path_rate: Probability of dropping a residual branch of a sample (stochastic depth,
            arXiv 1603.09382), in [0, 1).
        layer_scale: Initial value of the learned per-channel scale of each residual branch
            (``gamma1``, ``gamma2``; arXiv 2103.17239), or None for no such scale.
        attention: What tokens attend to, one of ``ATTENTION_PATTERNS``; the patterns other than the
            default are meant for comparison.
        shifted: Whether the windows of 'shifted_window' are shifted, by half their length.
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
        attention: str = 'neighborhood',
        shifted: bool = False,
        attention_backend: str = 'auto',
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels)
        self.attn = _make_attention(
            attention,
            kernel_size,
            dilation=dilation,
            shifted=shifted,
            backend=attention_backend,
            channels=channels,
            num_heads=num_heads,
            qkv_bias=qkv_bias,
            relative_position_bias=relative_position_bias,
            drop_rate=drop_rate,
        )
        self.norm2 = LayerNorm(channels)
        check_positive('mlp_ratio', mlp_ratio)
        hidden_channels = int(channels * mlp_ratio)
        if hidden_channels == 0:
            raise ValueError(
                f'mlp_ratio must give the MLP at least 1 hidden channel, but {mlp_ratio} * '
                f'{channels} channels is below 1'
            )
        self.mlp = Mlp(channels, hidden_channels, drop_rate=drop_rate)
        self.drop_path = DropPath(drop_path_rate)
        if layer_scale is None:
            self.register_parameter('gamma1', None)
            self.register_parameter('gamma2', None)
        else:
            check_positive('layer_scale', layer_scale)
            self.gamma1 = nn.Parameter(torch.full((channels,), float(layer_scale)))
            self.gamma2 = nn.Parameter(torch.full((channels,), float(layer_scale)))

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[B, H, W, C]`` to the same shape."""
        x = self._add(x, self.attn(self.norm1(x)), self.gamma1)
        x = self._add(x, self.mlp(self.norm2(x)), self.gamma2)
        return x

    def _add(self, x: Tensor, branch: Tensor, gamma: Tensor | None) -> Tensor:
        """Computes ``x + drop_path(gamma * branch)``, in one pass over memory if dtypes match."""
        scale = gamma
        if self.training and self.drop_path.p > 0:
            kept = self.drop_path(branch)
            scale = kept if gamma is None else kept * gamma
        if scale is None:
            return x + branch
        if x.dtype != branch.dtype:  # under autocast, addcmul would copy the branch first
            return x + branch * scale
        return torch.addcmul(x, branch, scale)


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): draws which samples of a batch keep a residual branch.

    Args:
        p: Probability that a sample's branch is dropped, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        check_probability('drop_path_rate', p)
        self.p = p

    def forward(self, branch: Tensor) -> Tensor:
        """Draws the factor of each sample of ``[B, H, W, C]``.

        Returns:
            ``[B, 1, 1, 1]``: 0 with probability p, otherwise ``1 / (1 - p)``.
        """
        kept = branch.new_empty(len(branch), 1, 1, 1)
        return kept.bernoulli_(1 - self.p).div_(1 - self.p)

    def extra_repr(self) -> str:
        """Returns the probability, for ``print(model)``."""
        return f'p={self.p}'


def _make_attention(
    pattern: str, kernel_size: int, *, dilation: int, shifted: bool, backend: str, **options: Any
) -> nn.Module:
    """Creates the attention module of a layer; see `NATLayer`."""
    check_bool('shifted', shifted)
    if pattern not in ATTENTION_PATTERNS:
        known = ', '.join(ATTENTION_PATTERNS)
        raise ValueError(f'attention must be one of {known}, got {pattern!r}')
    if shifted and pattern != 'shifted_window':
        raise ValueError(f"only attention 'shifted_window' can be shifted, not {pattern!r}")
    if pattern in ('neighborhood', 'sasa'):
        kind = NeighborhoodAttention2D if pattern == 'neighborhood' else StandAloneAttention2D
        return kind(kernel_size=kernel_size, dilation=dilation, backend=backend, **options)
    if dilation != 1:
        raise ValueError(
            f'attention {pattern!r} has no dilation: give dilations of 1 or take the backbone NAT, '
            f'got {dilation}'
        )
    if backend != 'auto':
        raise ValueError(
            f'attention {pattern!r} does not use the operator and its backends: leave the '
            f"attention backend at 'auto', got {backend!r}"
        )
    if pattern == 'full':
        return SelfAttention2D(map_size=kernel_size, **options)
    check_window_length(kernel_size)
    shift = kernel_size // 2 if shifted else 0
    return ShiftedWindowAttention2D(window_size=kernel_size, shift=shift, **options)


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between them.

    Args:
        channels: Number of input and output channels.
        hidden_channels: Number of channels between the two layers.
        drop_rate: Dropout probability after each linear layer, in [0, 1).
    """

    def __init__(self, channels: int, hidden_channels: int, *, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden_channels)
        self.act = GELU()
        self.fc2 = nn.Linear(hidden_channels, channels)
        check_probability('drop_rate', drop_rate)
        self.drop = nn.Dropout(drop_rate)

    @recompute_in_backward
    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[..., C]`` to ``[..., C]``, each position separately."""
        pieces = split_tokens(x, self.fc1.out_features)
        if len(pieces) == 1:
            return self.drop(self._project(self.fc1(x)))
        widen = functools.partial(recomputable, self.fc1) if self._fc1_is_plain() else self.fc1
        outputs = [self._project(widen(piece)) for piece in pieces]
        return self.drop(torch.cat(outputs).view_as(x))

    def _fc1_is_plain(self) -> bool:
        """Returns whether a second call of the first layer repeats the first call.

        Adapters with dropout, spectral normalization and hooks may have randomness or a state.
        """
        hooks = self.fc1._forward_hooks or self.fc1._forward_pre_hooks
        return type(self.fc1) is nn.Linear and not hooks

    def _project(self, hidden: Tensor) -> Tensor:
        return self.fc2(self.drop(self.act(hidden)))
