"""Tests that small images are padded for the backbones that need it."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nat_mm.backbones import NAT, NATIsotropic
from nat_mm.inference.model_settings import small_images_padded


def make_model(backbone):
    model = nn.Module()
    model.backbone = backbone
    model.data_preprocessor = SimpleNamespace(pad_size_divisor=1)
    return model


@pytest.mark.parametrize(
    ('backbone', 'divisor'),
    [
        (NAT(embed_dim=8, depths=(1,), num_heads=(1,), out_indices=(0,)), 32),
        (NATIsotropic(embed_dim=8, depth=1, num_heads=1, kernel_size=3), 32),
        (nn.Identity(), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else '',
)
def test_divisor_while_a_model_runs(backbone, divisor):
    model = make_model(backbone)
    with small_images_padded(model, [torch.zeros(3, 20, 40)]):
        assert model.data_preprocessor.pad_size_divisor == divisor
    with small_images_padded(model, [torch.zeros(3, 32, 40)]):
        assert model.data_preprocessor.pad_size_divisor == 1
    assert model.data_preprocessor.pad_size_divisor == 1
