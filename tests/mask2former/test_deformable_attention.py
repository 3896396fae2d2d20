"""Tests mmcv's deformable attention without compiled operators, even where it would call CUDA's."""

import mmcv.ops.multi_scale_deform_attn as module
import pytest
import torch

from nat_mm.compat.mmcv_ops.deformable_attention import (
    ms_deform_attn_backward,
    ms_deform_attn_forward,
)

SHAPES = torch.tensor([[6, 9], [3, 5]])
STARTS = torch.tensor([0, 54])


@pytest.fixture
def like_cuda(monkeypatch):
    """Makes mmcv treat every tensor as if it were on a GPU; returns the operators it calls."""
    called = []

    def record(operator):
        def run(*args, **kwargs):
            called.append(operator.__name__)
            return operator(*args, **kwargs)

        return run

    for operator in (ms_deform_attn_forward, ms_deform_attn_backward):
        monkeypatch.setattr(module.ext_module, operator.__name__, record(operator))
    monkeypatch.setattr(module, 'IS_CUDA_AVAILABLE', True)
    monkeypatch.setattr(torch.Tensor, 'is_cuda', True)
    return called


def attend():
    """Returns the output and the gradients of a layer of the pixel decoder."""
    torch.manual_seed(0)
    layer = module.MultiScaleDeformableAttention(32, num_heads=4, num_levels=2, batch_first=True)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    query = torch.randn(2, 69, 32, requires_grad=True)
    output = layer(
        query,
        reference_points=torch.rand(2, 69, 2, 2),
        spatial_shapes=SHAPES,
        level_start_index=STARTS,
    )
    output.square().sum().backward()
    return [output, query.grad, *(parameter.grad for parameter in layer.parameters())]


def test_cuda_tensors_reach_the_same_result(request):
    expected = attend()
    called = request.getfixturevalue('like_cuda')
    result = attend()
    assert called == ['ms_deform_attn_forward', 'ms_deform_attn_backward']
    for value, wanted in zip(result, expected, strict=True):
        torch.testing.assert_close(value, wanted)
