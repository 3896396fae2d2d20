"""Tests that activation checkpointing trains the same with less memory."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks


def train_once(model, image):
    """Returns the bytes that forward keeps for backward, the features and the gradients."""
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        torch.manual_seed(3)
        features = model(image)
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    sum(each.relu().square().sum() for each in features).backward()
    grads = {name: each.grad for name, each in model.named_parameters() if each.requires_grad}
    return sum(kept.values()), features, grads


@pytest.mark.parametrize('frozen_stages', [-1, 1], ids=['trained', 'frozen'])
def test_same_training_with_less_memory(make_backbone, frozen_stages):
    image = torch.randn(3, 3, 72, 80)
    (plain, *expected), (saved, *found) = (
        train_once(
            make_backbone(
                depths=(2, 2),
                **({'dilations': [[1, 3], [1, 2]]} if make_backbone().dilated else {}),
                with_cp=with_cp,
                drop_path_rate=0.5,
                drop_rate=0.2,
                frozen_stages=frozen_stages,
            ),
            image,
        )
        for with_cp in (False, True)
    )
    torch.testing.assert_close(found, expected)
    assert saved < 0.6 * plain
