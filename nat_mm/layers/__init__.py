"""Building blocks of the backbones; every map in here is channels-last, [B, H, W, C]."""

from nat_mm.layers.downsample import ConvDownsampler, ConvTokenizer, PatchMerging, PatchTokenizer
from nat_mm.layers.nat_layer import Mlp, NATLayer, NeighborhoodAttention2D
from nat_mm.layers.self_attention import SelfAttention2D

__all__ = [
    'ConvDownsampler',
    'ConvTokenizer',
    'Mlp',
    'NATLayer',
    'NeighborhoodAttention2D',
    'PatchMerging',
    'PatchTokenizer',
    'SelfAttention2D',
]
