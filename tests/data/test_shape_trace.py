"""Tests that the shortcuts of a trace give the same shapes as PyTorch."""

import pytest
import torch
from mmengine.config import Config
from torch import nn
from torch.nn import functional

from nat_mm.data.shape_trace import Failure, ShapeTrace


class Layer(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, maps):
        return self.function(maps)


STEPS = {
    'layer-norm': lambda maps: functional.layer_norm(maps, (6,)),
    'layer-norm-of-two-axes': lambda maps: functional.layer_norm(maps, (5, 6)),
    'batch-norm': nn.BatchNorm2d(8, device='meta'),
    'resized': lambda maps: functional.interpolate(maps, size=(10, 7), mode='bilinear'),
    'resized-to-a-square': lambda maps: functional.interpolate(maps, size=9),
    'scaled': lambda maps: functional.interpolate(maps, scale_factor=2),
}
WRONG = {
    'layer-norm': lambda maps: functional.layer_norm(maps, (7,)),
    'layer-norm-of-more-axes': lambda maps: functional.layer_norm(maps, (1, 2, 8, 5, 6)),
    'batch-norm': nn.BatchNorm2d(9, device='meta'),
    'single-values': lambda maps: functional.batch_norm(
        maps[:1, :, :1, :1], torch.zeros(8, device='meta'), None, training=True
    ),
    'resized-along-one-axis': lambda maps: functional.interpolate(maps, size=(10,)),
    'resized-to-nothing': lambda maps: functional.interpolate(maps, size=(0, 7)),
}


@pytest.fixture
def run(monkeypatch):
    """Runs one step of a model on maps ``[2, 8, 5, 6]``."""

    def call(step):
        model = nn.Sequential(Layer(step))
        monkeypatch.setattr('nat_mm.data.shape_trace.build_without_memory', lambda config: model)
        trace = ShapeTrace(Config({}), (5, 6), 8)
        return trace.run(model, trace.image())

    return call


@pytest.mark.parametrize('name', STEPS)
def test_shape(name, run):
    expected = STEPS[name](torch.empty(2, 8, 5, 6, device='meta'))
    result = run(STEPS[name])
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    assert result.is_meta


@pytest.mark.parametrize('name', WRONG)
def test_what_does_not_fit_is_refused(name, run):
    with pytest.raises((ValueError, RuntimeError)) as raised:
        WRONG[name](torch.empty(2, 8, 5, 6, device='meta'))
    result = run(WRONG[name])
    assert isinstance(result, Failure)
    assert str(result.error) == str(raised.value)
