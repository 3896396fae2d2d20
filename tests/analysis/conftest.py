"""Small backbones and images to analyze."""

import pytest
import torch

from nat_mm.backbones import NAT, DiNAT, DiNAT_s

SIZES = {'embed_dim': 16, 'depths': (2, 2, 2, 1), 'num_heads': (1, 2, 2, 4), 'kernel_size': 3}
DILATIONS = ((1, 4), (1, 2), (1, 2), (1,))


def make_backbone(kind: str, **options):
    """Makes a small backbone with random weights and non-uniform attention."""
    torch.manual_seed(0)
    options = {**SIZES, **options}
    if kind != 'NAT':
        options.setdefault('dilations', DILATIONS)
    backbone = {'NAT': NAT, 'DiNAT': DiNAT, 'DiNAT_s': DiNAT_s}[kind](**options).eval()
    for name, parameter in backbone.named_parameters():
        if name.endswith('rpb') or 'qkv' in name:
            torch.nn.init.normal_(parameter, std=0.25)
    return backbone


@pytest.fixture
def image():
    """Random input for a backbone, [1, 3, 96, 132]."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, 3, 96, 132, generator=generator)
