"""Small backbones, and classifiers in the authors' published format."""

from typing import Any

import torch

from nat_mm.backbones import NAT, DiNAT, DiNAT_s

SMALL = {'embed_dim': 16, 'depths': (2, 1, 1, 1), 'num_heads': (1, 2, 4, 8), 'kernel_size': 3}
DILATIONS = ((1, 3), (2,), (1,), (1,))
FAMILIES = {'NAT': NAT, 'DiNAT': DiNAT, 'DiNAT_s': DiNAT_s}
CLASSES = 5

StateDict = dict[str, torch.Tensor]


def make_backbone(family: str = 'NAT', **options: Any) -> torch.nn.Module:
    """Makes a backbone, with different weights on each call."""
    if family != 'NAT':
        options.setdefault('dilations', DILATIONS)
    backbone = FAMILIES[family](**{**SMALL, **options}).eval()
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return backbone


def make_classifier(family: str = 'NAT', **options: Any) -> StateDict:
    """Makes the state dict of an ImageNet classifier with the authors' keys."""
    state_dict = dict(make_backbone(family, out_indices=(3,), **options).state_dict())
    for kind in ('weight', 'bias'):
        state_dict[f'norm.{kind}'] = state_dict.pop(f'norm3.{kind}')
    state_dict['head.weight'] = torch.randn(CLASSES, len(state_dict['norm.weight']))
    state_dict['head.bias'] = torch.randn(CLASSES)
    return state_dict


class ImageClassifier(torch.nn.Module):
    """Mirrors mmpretrain's ``ImageClassifier`` at test time, with the same parameter names."""

    def __init__(self, backbone: torch.nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = torch.nn.Module()
        self.head.fc = torch.nn.Linear(128, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Maps images ``[B, 3, H, W]`` to scores ``[B, CLASSES]``."""
        return self.head.fc(self.backbone(image)[-1].mean((2, 3)))


def assert_same(found: StateDict, wanted: StateDict) -> None:
    """Checks that two state dicts have the same keys and bitwise equal values."""
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert found[key].dtype == tensor.dtype, key
        assert torch.equal(found[key], tensor), key
