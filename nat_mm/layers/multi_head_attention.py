"""What the attention modules have in common."""

from typing import Any

import torch
from torch import nn

from nat_mm.layers.rpb import resize_stored_rpb
from nat_mm.ops.validation import check_bool, check_int, check_probability


class MultiHeadAttention2D(nn.Module):
    """Projections and relative positional bias; subclasses say which tokens attend to which.

    Loading a state dict whose ``rpb`` belongs to another length resizes that table.

    Args:
        channels: Number of channels C; a multiple of ``num_heads``.
        num_heads: Number of attention heads.
        length: Largest number of tokens along an axis that attend to each other.
        qkv_bias: Whether the projection to query, key and value has a bias.
        relative_position_bias: Whether to learn ``rpb``, ``[num_heads, 2 * length - 1,
            2 * length - 1]``; otherwise ``rpb`` is None.
        drop_rate: Dropout probability after the output projection, in [0, 1).

    Attributes:
        length_name: What a subclass calls ``length``, for messages.
    """

    length_name: str

    def __init__(
        self,
        channels: int,
        num_heads: int,
        length: int,
        *,
        qkv_bias: bool,
        relative_position_bias: bool,
        drop_rate: float,
    ) -> None:
        super().__init__()
        check_int('num_heads', num_heads, minimum=1)
        check_int('channels', channels, minimum=1)
        check_bool('qkv_bias', qkv_bias)
        check_bool('relative_position_bias', relative_position_bias)
        check_probability('drop_rate', drop_rate)
        if channels % num_heads:
            raise ValueError(
                f'num_heads must divide channels, but {num_heads} does not divide {channels}'
            )
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        if relative_position_bias:
            table_length = 2 * length - 1
            self.rpb = nn.Parameter(torch.empty(num_heads, table_length, table_length))
            nn.init.trunc_normal_(self.rpb, std=0.02)
        else:
            self.register_parameter('rpb', None)
        self.proj = nn.Linear(channels, channels)
        self.drop = nn.Dropout(drop_rate)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        resize_stored_rpb(state_dict, prefix + 'rpb', self.rpb, measure=self.length_name)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
