"""Feed-forward half of a transformer layer."""

import torch
from torch import nn


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
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_channels, channels)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps ``[..., C]`` to ``[..., C]``, each position by itself."""
        x = self.drop(self.act(self.fc1(x)))
        return self.drop(self.fc2(x))
