"""Tests that forward and backward in 16 bits under autocast stay near float32."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from nat_mm.training.bf16_instructions import avoid_unusable_amx


@pytest.fixture(scope='module', autouse=True)
def usable_instructions():
    avoid_unusable_amx()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('with_cp', [False, True], ids=['plain', 'checkpointed'])
def test_features_and_gradients_stay_near_float32(make_backbone, with_cp, dtype):
    image = torch.randn(2, 3, 40, 56)
    results = []
    for enabled in (False, True):
        model = make_backbone(with_cp=with_cp)
        with torch.autocast('cpu', dtype=dtype, enabled=enabled):
            features = model(image)
        # The loss is scaled, as it is when training with fp16.
        (100 * sum(each.float().relu().square().mean() for each in features)).backward()
        grads = {name: each.grad for name, each in model.named_parameters()}
        results.append((features, grads))
    (features, grads), (rough_features, rough_grads) = results
    for rough, exact in zip(rough_features, features, strict=True):
        assert (rough.float() - exact).abs().mean() < 0.02 * exact.abs().mean()
    for name, exact in grads.items():
        rough = rough_grads[name]
        assert rough.dtype == torch.float32
        assert cosine_similarity(rough.flatten(), exact.flatten(), dim=0) > 0.99, name
