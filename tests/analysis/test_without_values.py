"""Tests which tensors have values while FLOPs are counted, and what fails without values."""

import pytest
import torch
from torch import nn

from nat_mm.analysis.without_values import WithoutValues


def test_large_weights_are_not_made():
    with WithoutValues():
        layer = nn.Linear(100, 50)
    assert layer.weight.is_meta
    assert layer.bias.isfinite().all()


def test_models_on_the_cpu_run_and_stay_as_they_are():
    layer = nn.Linear(100, 50)
    weight = layer.weight.clone()
    image = torch.zeros(3, 100, device='meta')
    with WithoutValues():
        result = layer(image)
    assert result.is_meta
    assert result.shape == (3, 50)
    assert layer.weight.equal(weight)


def test_sizes_keep_their_values():
    features = torch.zeros(1, 2, 30, 40, device='meta')
    with WithoutValues():
        size = torch._shape_as_tensor(features)[2:].to(features.device)
        count = torch.arange(1, 3, device=features.device).sum()
        rows = torch.zeros(1, 1200, device='meta').split([size[0] * 10, size[1] + 860], dim=1)
        assert (features / size[0]).is_meta
    assert size.tolist() == [30, 40]
    assert int(count) == 3
    assert [each.shape[1] for each in rows] == [300, 900]


@pytest.mark.parametrize(
    'use',
    [
        lambda image: image.sum().item(),
        lambda image: image.nonzero(),
        lambda image: torch.zeros(1).add_(image.sum()),
    ],
    ids=['item', 'nonzero', 'writing'],
)
def test_needing_a_value_is_an_error(use):
    image = torch.zeros(2, 3, device='meta')
    with pytest.raises(RuntimeError), WithoutValues():
        use(image)
