"""Small two-stage backbones that contain every part of a full backbone."""

from collections.abc import Callable, Iterator

import pytest
import torch

from nat_mm.backbones import NAT, DiNAT, DiNAT_s
from nat_mm.backbones.base import NeighborhoodBackbone

FAMILIES = {'NAT': NAT, 'DiNAT': DiNAT, 'DiNAT_s': DiNAT_s}


@pytest.fixture(params=FAMILIES)
def make_backbone(request) -> Callable[..., NeighborhoodBackbone]:
    """Makes a small backbone of each family in turn, with the same weights on each call.

    Its windows contain 3 x 3 tokens and, except in NAT, span 9 x 9 in stage 0 and 6 x 6 in stage 1.
    """

    def make(**options) -> NeighborhoodBackbone:
        if request.param != 'NAT':
            options.setdefault('dilations', [[3], [2]])
        torch.manual_seed(0)
        return FAMILIES[request.param](
            **{
                'embed_dim': 32,
                'depths': (1, 1),
                'num_heads': (1, 2),
                'kernel_size': 3,
                'out_indices': (0, 1),
                **options,
            }
        )

    return make


@pytest.fixture
def forget_compiled_code() -> Iterator[None]:
    """Compiles anew, and leaves nothing compiled to later tests."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
