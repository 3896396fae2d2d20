"""Building blocks of the backbones; every map in here is channels-last, [B, H, W, C]."""

from nat_mm.layers.attention import NeighborhoodAttention2D
from nat_mm.layers.downsample import ConvDownsampler, PatchMerging
from nat_mm.layers.embed import ConvTokenizer, PatchTokenizer
from nat_mm.layers.mlp import Mlp
from nat_mm.layers.nat_layer import NATLayer

__all__ = [
    'ConvDownsampler',
    'ConvTokenizer',
    'Mlp',
    'NATLayer',
    'NeighborhoodAttention2D',
    'PatchMerging',
    'PatchTokenizer',
]
