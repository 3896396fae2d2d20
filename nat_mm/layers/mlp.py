"""Feed-forward half of a transformer layer."""

import torch
from torch import nn

from nat_mm.layers.pieces import split_tokens
from nat_mm.layers.recompute import recompute_in_backward


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

    def forward(self, x: torch.Tensor, *, norm: nn.Module | None = None) -> torch.Tensor:
        """Maps ``[..., C]`` to ``[..., C]``, each position by itself.

        Args:
            x: Tokens, ``[..., C]``.
            norm: Applied to ``x`` first, if given. In training on a CPU neither its output nor that
                of the activation is kept in memory: both are computed again in backward. A map
                whose hidden channels would need more than 32 MiB is taken a piece at a time there,
                and the output of the first linear layer is not kept either.
        """
        is_random = self.training and self.drop.p > 0
        expand = self.fc1 if norm is None else lambda x: self.fc1(norm(x))
        pieces = split_tokens(x, self.fc1.out_features)
        if len(pieces) > 1:
            outputs = [
                recompute_in_backward(
                    lambda x: self._activate_and_project(expand(x)),
                    piece,
                    random=is_random,
                )
                for piece in pieces
            ]
            return self.drop(torch.cat(outputs).view_as(x))
        hidden = expand(x) if norm is None else recompute_in_backward(expand, x)
        return self.drop(
            recompute_in_backward(self._activate_and_project, hidden, random=is_random)
        )

    def _activate_and_project(self, hidden: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            hidden = self.act(hidden)
        else:
            torch.ops.aten.gelu_(hidden)  # nobody else has it, and fresh memory costs time
        return self.fc2(self.drop(hidden))
