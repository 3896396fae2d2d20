"""Small backbones with the full structure."""

from collections.abc import Callable

import pytest
import torch

from nat_mm.backbones import NAT, DiNAT, DiNAT_s
from nat_mm.backbones.base import NeighborhoodBackbone

SMALL = {
    'embed_dim': 32,
    'depths': (1, 1, 1, 1),
    'num_heads': (1, 2, 4, 8),
    'kernel_size': 3,
    'mlp_ratio': 2.0,
}


@pytest.fixture
def make_nat() -> Callable[..., NAT]:
    """Makes a small NAT, with the same weights on each call."""

    def make(**options) -> NeighborhoodBackbone:
        torch.manual_seed(0)
        return NAT(**{**SMALL, **options})

    return make


@pytest.fixture
def make_dinat() -> Callable[..., DiNAT]:
    """Makes a small DiNAT, with the same weights on each call."""

    def make(**options) -> NeighborhoodBackbone:
        torch.manual_seed(0)
        return DiNAT(**{**SMALL, 'dilations': [[3], [2], [1], [1]], **options})

    return make


@pytest.fixture
def make_dinat_s() -> Callable[..., DiNAT_s]:
    """Makes a small DiNAT_s, with the same weights on each call."""

    def make(**options) -> NeighborhoodBackbone:
        torch.manual_seed(0)
        return DiNAT_s(**{**SMALL, 'dilations': [[3], [2], [1], [1]], **options})

    return make
