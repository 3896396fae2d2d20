"""Tests that gradients accumulated over small batches equal those of one large batch."""

import pytest
import torch
from mmengine.optim import OptimWrapper

from nat_mm.training.autocast import AutocastOptimWrapper

IMAGES = 4


@pytest.mark.parametrize('wrapper_class', [OptimWrapper, AutocastOptimWrapper])
@pytest.mark.parametrize('counts', [2, 4])
def test_weights_after_one_step(make_backbone, wrapper_class, counts):
    images = torch.randn(IMAGES, 3, 36, 44)
    weights = []
    for batches in (1, counts):
        model = make_backbone()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        wrapper = wrapper_class(
            optimizer=optimizer, accumulative_counts=batches, clip_grad=dict(max_norm=1.0)
        )
        wrapper.initialize_count_status(model, 0, batches)
        before = {name: each.clone() for name, each in model.state_dict().items()}
        for batch in images.chunk(batches):
            with wrapper.optim_context(model):
                loss = sum(each.float().relu().square().mean() for each in model(batch))
            wrapper.update_params(loss)
        weights.append({name: each - before[name] for name, each in model.state_dict().items()})
    tolerance = 1e-6 if wrapper_class is OptimWrapper else 1e-2
    for name, step in weights[0].items():
        assert (weights[1][name] - step).norm() <= tolerance + tolerance * step.norm(), name
    assert sum(step.norm() for step in weights[0].values()) > 0.01
