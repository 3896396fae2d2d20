"""Self-attention of each token to the whole map, with a relative positional bias."""

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from nat_mm.layers.multi_head_attention import MultiHeadAttention2D
from nat_mm.layers.recomputation import recompute_in_backward
from nat_mm.layers.rpb import resize_rpb
from nat_mm.ops.validation import check_int


class SelfAttention2D(MultiHeadAttention2D):
    """Multi-head self-attention of each token to all tokens of the map.

    ViT-rpb in the DiNAT paper (arXiv 2209.15001) uses this instead of
    :class:`~nat_mm.layers.NeighborhoodAttention2D`, with the same parameter names. The bias table
    has an entry for each offset in a map of ``map_size``. On a map of another size, the table is
    resized to that map's offsets by bicubic interpolation; loading a state dict with a table for
    another ``map_size`` resizes it once.

    Time grows with the square of the number of tokens. So does memory if there is a bias: 4 bytes
    per head and pair of tokens, 0.8 GB for 12 heads on a 64 x 64 map.

    Args:
        channels: Number of channels C; a multiple of ``num_heads``.
        num_heads: Number of attention heads.
        map_size: Height and width of the maps for which ``rpb`` is exact.
        qkv_bias: Whether the projection to query, key and value has a bias.
        relative_position_bias: Whether to learn ``rpb``, ``[num_heads, 2 * map_size - 1,
            2 * map_size - 1]``, a bias on the scores by relative position; otherwise ``rpb`` is
            None.
        drop_rate: Dropout probability after the output projection, in [0, 1).

    Raises:
        TypeError: If an integer argument is not an int or a flag not a bool.
        ValueError: If a number is out of its range or ``num_heads`` does not divide ``channels``.
    """

    length_name = 'map size'

    def __init__(
        self,
        channels: int,
        num_heads: int,
        *,
        map_size: int = 14,
        qkv_bias: bool = True,
        relative_position_bias: bool = True,
        drop_rate: float = 0.0,
    ) -> None:
        check_int('map_size', map_size, minimum=1)
        super().__init__(
            channels,
            num_heads,
            map_size,
            qkv_bias=qkv_bias,
            relative_position_bias=relative_position_bias,
            drop_rate=drop_rate,
        )
        self.map_size = map_size

    @recompute_in_backward
    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[B, H, W, C]`` of any height and width to the same shape."""
        batch, height, width, channels = x.shape
        tokens, head_dim = height * width, channels // self.num_heads
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, head_dim)
        # [B, heads, tokens, head_dim] each
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias = None if self.rpb is None else self._spread_bias(self.rpb, height, width)
        x = scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = x.transpose(1, 2).reshape(batch, height, width, channels)
        return self.drop(self.proj(x))

    def _spread_bias(self, table: Tensor, height: int, width: int) -> Tensor:
        """Returns the bias of each pair of tokens, ``[heads, queries, keys]``."""
        if (height, width) != (self.map_size, self.map_size):
            table = resize_rpb(table, (height, width))
        # [heads, i, j, H, W]: the keys' biases for a query whose window in the table starts at
        # (i, j). The flip is needed because the first query's keys have the last rows and columns
        # of the table.
        windows = table.unfold(1, height, 1).unfold(2, width, 1).flip(1, 2)
        return windows.reshape(self.num_heads, height * width, height * width)

    def extra_repr(self) -> str:
        """Returns the main options, for ``print(model)``."""
        return f'num_heads={self.num_heads}, map_size={self.map_size}'
