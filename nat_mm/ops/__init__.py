"""The neighborhood attention operator; requires only PyTorch."""

from nat_mm.ops.api import neighborhood_attention_1d, neighborhood_attention_2d
from nat_mm.ops.attention_weights import neighborhood_attention_weights
from nat_mm.ops.flops import flop_formulas, flop_handles

__all__ = [
    'flop_formulas',
    'flop_handles',
    'neighborhood_attention_1d',
    'neighborhood_attention_2d',
    'neighborhood_attention_weights',
]
