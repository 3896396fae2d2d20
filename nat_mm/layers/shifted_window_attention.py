"""Self-attention within windows that alternate between two partitions of the map."""

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from nat_mm.layers.multi_head_attention import MultiHeadAttention2D
from nat_mm.layers.recomputation import recomputable, recompute_in_backward
from nat_mm.ops.validation import check_int


class ShiftedWindowAttention2D(MultiHeadAttention2D):
    """Multi-head self-attention within windows, as in Swin (arXiv 2103.14030).

    The map is partitioned into windows of ``window_size`` x ``window_size`` tokens, shifted up and
    left by ``shift`` tokens; tokens attend to their own window. A map whose size is not a multiple
    of ``window_size`` is zero-padded at the right and bottom before the projection to query, key
    and value, and tokens attend to the padding, as in Swin. An axis that a single window covers is
    not shifted.

    Parameters have the same names and shapes as in :class:`~nat_mm.layers.NeighborhoodAttention2D`,
    so the two can share weights. Swin's bias table is ``rpb`` rotated by 180 degrees. Loading a
    state dict whose ``rpb`` belongs to another window size resizes that table.

    Args:
        channels: Number of channels C; a multiple of ``num_heads``.
        num_heads: Number of attention heads.
        window_size: Window length, at least 1, the same for both axes.
        shift: Rows and columns by which the windows are shifted, from 0 to ``window_size - 1``.
        qkv_bias: Whether the projection to query, key and value has a bias.
        relative_position_bias: Whether to learn ``rpb``, ``[num_heads, 2 * window_size - 1,
            2 * window_size - 1]``, a bias on the scores by relative position; otherwise ``rpb`` is
            None.
        drop_rate: Dropout probability after the output projection, in [0, 1).

    Raises:
        TypeError: If an integer argument is not an int or a flag not a bool.
        ValueError: If a number is out of its range or ``num_heads`` does not divide ``channels``.
    """

    length_name = 'window size'

    def __init__(
        self,
        channels: int,
        num_heads: int,
        *,
        window_size: int = 7,
        shift: int = 0,
        qkv_bias: bool = True,
        relative_position_bias: bool = True,
        drop_rate: float = 0.0,
    ) -> None:
        check_int('window_size', window_size, minimum=1)
        check_int('shift', shift, minimum=0)
        if shift >= window_size:
            raise ValueError(f'shift must be below window_size ({window_size}), got {shift}')
        super().__init__(
            channels,
            num_heads,
            window_size,
            qkv_bias=qkv_bias,
            relative_position_bias=relative_position_bias,
            drop_rate=drop_rate,
        )
        self.window_size = window_size
        self.shift = shift

    @recompute_in_backward
    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[B, H, W, C]`` of any height and width to the same shape."""
        batch, height, width, channels = x.shape
        size, head_dim = self.window_size, channels // self.num_heads
        x = recomputable(self._pad_and_shift, x)
        rows, columns = x.shape[1] // size, x.shape[2] // size
        qkv = self.qkv(x).view(batch, rows, size, columns, size, 3, self.num_heads, head_dim)
        # [B, windows * heads, tokens, head_dim] each
        query, key, value = (
            qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(5, 6).flatten(2, 4).unbind(0)
        )
        bias = self._window_bias(rows, columns, like=query)
        x = scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = x.view(batch, rows, columns, self.num_heads, size, size, head_dim)
        x = x.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, rows * size, columns * size, channels)
        shifts = self._shifts(rows, columns)
        x = x.roll(shifts, dims=(1, 2)) if any(shifts) else x
        return self.drop(self.proj(x[:, :height, :width]))

    def _shifts(self, rows: int, columns: int) -> tuple[int, int]:
        """Returns the shift along each axis, given the number of windows."""
        return self.shift * (rows > 1), self.shift * (columns > 1)

    def _pad_and_shift(self, x: Tensor) -> Tensor:
        """Pads to whole windows and rolls the map, so that shifted windows start at its corner."""
        size = self.window_size
        _, height, width, _ = x.shape
        bottom, right = -height % size, -width % size
        if bottom or right:
            x = pad(x, (0, 0, 0, right, 0, bottom))
        shifts = self._shifts(x.shape[1] // size, x.shape[2] // size)
        return x.roll([-shift for shift in shifts], dims=(1, 2)) if any(shifts) else x

    def _window_bias(self, rows: int, columns: int, *, like: Tensor) -> Tensor | None:
        """Returns what to add to the scores, ``[windows * heads, queries, keys]``.

        This includes a mask that separates a window's tokens that were rolled around from those
        that were not.
        """
        size, tokens = self.window_size, self.window_size**2
        shifts = self._shifts(rows, columns)
        bias: Tensor | None = None
        if self.rpb is not None:
            # [heads, i, j, size, size]: the keys' biases for a query whose window in the table
            # starts at (i, j). The flip is needed because the first query's keys have the last rows
            # and columns of the table.
            table = self.rpb.unfold(1, size, 1).unfold(2, size, 1).flip(1, 2)
            bias = table.reshape(1, self.num_heads, tokens, tokens)
        if any(shifts):
            # [length] for each axis: whether a token was rolled around
            turned_rows, turned_columns = (
                torch.arange(count * size, device=like.device) >= count * size - shift
                for count, shift in zip((rows, columns), shifts, strict=True)
            )
            region = 2 * turned_rows[:, None] + turned_columns.long()
            region = region.view(rows, size, columns, size).transpose(1, 2).reshape(-1, 1, tokens)
            apart = region[..., None] != region[..., None, :]
            mask = like.new_zeros(apart.shape).masked_fill_(apart, -torch.inf)
            bias = mask if bias is None else bias + mask
        if bias is None:
            return None
        return bias.expand(rows * columns, self.num_heads, -1, -1).flatten(0, 1).to(like.dtype)

    def extra_repr(self) -> str:
        """Returns the main options, for ``print(model)``."""
        return f'num_heads={self.num_heads}, window_size={self.window_size}, shift={self.shift}'
