"""NAT (arXiv 2204.07143) and DiNAT (arXiv 2209.15001)."""

import dataclasses
from typing import Any

from mmengine.registry import MODELS

from nat_mm.backbones.architecture import Architecture
from nat_mm.backbones.base import NeighborhoodBackbone
from nat_mm.layers import ConvDownsampler, ConvTokenizer

# drop_path_rate and dilations are those of the published ImageNet classifiers at 224 x 224
NAT_ARCHITECTURES = {
    'mini': Architecture(
        embed_dim=64,
        depths=(3, 4, 6, 5),
        num_heads=(2, 4, 8, 16),
        mlp_ratio=3.0,
        drop_path_rate=0.2,
    ),
    'tiny': Architecture(
        embed_dim=64,
        depths=(3, 4, 18, 5),
        num_heads=(2, 4, 8, 16),
        mlp_ratio=3.0,
        drop_path_rate=0.2,
    ),
    'small': Architecture(
        embed_dim=96,
        depths=(3, 4, 18, 5),
        num_heads=(3, 6, 12, 24),
        mlp_ratio=2.0,
        drop_path_rate=0.3,
        layer_scale=1e-5,
    ),
    'base': Architecture(
        embed_dim=128,
        depths=(3, 4, 18, 5),
        num_heads=(4, 8, 16, 32),
        mlp_ratio=2.0,
        drop_path_rate=0.5,
        layer_scale=1e-5,
    ),
}


def _dilated(architecture: Architecture, **changes: Any) -> Architecture:
    """Dilates every second layer as far as a 224 x 224 image allows, except in the last stage."""
    dilations = tuple(
        tuple(1 if layer % 2 == 0 else dilation for layer in range(depth))
        for depth, dilation in zip(architecture.depths, (8, 4, 2, 1), strict=True)
    )
    return dataclasses.replace(architecture, dilations=dilations, **changes)


DINAT_ARCHITECTURES = {
    'mini': _dilated(NAT_ARCHITECTURES['mini']),
    'tiny': _dilated(NAT_ARCHITECTURES['tiny']),
    'small': _dilated(NAT_ARCHITECTURES['small'], layer_scale=None),
    'base': _dilated(NAT_ARCHITECTURES['base']),
    'large': _dilated(
        NAT_ARCHITECTURES['base'],
        embed_dim=192,
        num_heads=(6, 12, 24, 48),
        drop_path_rate=0.35,
        layer_scale=None,
    ),
}


@MODELS.register_module()
class NAT(NeighborhoodBackbone):
    """Neighborhood Attention Transformer (arXiv 2204.07143).

    Architectures ``mini``, ``tiny``, ``small``, ``base``. For the arguments, see
    :class:`~nat_mm.backbones.base.NeighborhoodBackbone`; there is no ``dilations``.
    """

    architectures = NAT_ARCHITECTURES
    stages_name = 'levels'
    make_tokenizer = staticmethod(ConvTokenizer)
    make_downsampler = staticmethod(ConvDownsampler)


@MODELS.register_module()
class DiNAT(NAT):
    """Dilated Neighborhood Attention Transformer (arXiv 2209.15001).

    Architectures ``mini``, ``tiny``, ``small``, ``base``, ``large``, with the dilations of the
    ImageNet classifiers at 224 x 224; detectors and segmentors pass their own. For the arguments,
    see :class:`~nat_mm.backbones.base.NeighborhoodBackbone`; without ``arch``, ``dilations`` must
    be given.
    """

    architectures = DINAT_ARCHITECTURES
    dilated = True
