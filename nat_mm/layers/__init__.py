"""Building blocks of the backbones; all feature maps here are channels-last, [B, H, W, C]."""

from nat_mm.layers.downsample import ConvDownsampler, ConvTokenizer, PatchMerging, PatchTokenizer
from nat_mm.layers.nat_layer import ATTENTION_PATTERNS, Mlp, NATLayer
from nat_mm.layers.neighborhood_attention import NeighborhoodAttention2D, StandAloneAttention2D
from nat_mm.layers.self_attention import SelfAttention2D
from nat_mm.layers.shifted_window_attention import ShiftedWindowAttention2D

__all__ = [
    'ATTENTION_PATTERNS',
    'ConvDownsampler',
    'ConvTokenizer',
    'Mlp',
    'NATLayer',
    'NeighborhoodAttention2D',
    'PatchMerging',
    'PatchTokenizer',
    'SelfAttention2D',
    'ShiftedWindowAttention2D',
    'StandAloneAttention2D',
]
