"""Tests mmseg's FocalLoss against torchvision's."""

import pytest
import torch
from mmseg.models.losses import FocalLoss
from torchvision.ops import sigmoid_focal_loss

from tests.simulated_gpu import simulated_gpu

IGNORED = 255


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
def test_loss_of_labels_with_ignored_pixels(channels, reduction):
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(2, channels, 4, 5, generator=generator, requires_grad=True)
    labels = torch.randint(max(channels, 2), (2, 4, 5), generator=generator)
    labels[0, 1] = IGNORED
    wanted = [1] if channels == 1 else range(channels)
    targets = torch.stack([labels == label for label in wanted], dim=1).float()
    expected = sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2.0)
    expected = expected * (labels != IGNORED)[:, None]
    if reduction != 'none':
        expected = getattr(expected, reduction)()
    loss = FocalLoss(alpha=0.25, reduction=reduction)(logits, labels, ignore_index=IGNORED)
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(each.sum(), logits)[0] for each in (loss, expected)]
    torch.testing.assert_close(*gradients)


def test_weights_of_pixels_and_classes():
    logits = torch.zeros(1, 2, 2, 2)
    labels = torch.tensor([[[0, 1], [IGNORED, 1]]])
    weight = torch.tensor([[[3.0, 1.0], [1.0, 1.0]]])
    criterion = FocalLoss(alpha=0.5, class_weight=[1.0, 10.0], reduction='none')
    loss = criterion(logits, labels, weight=weight)
    ratio = loss / loss[0, 0, 0, 1]
    torch.testing.assert_close(ratio[0], torch.tensor([[[3.0, 1], [0, 1]], [[30, 10], [0, 10]]]))


@pytest.mark.parametrize('reduction', ['none', 'mean'])
def test_weights_of_pixels_on_a_gpu(reduction):
    """As a pixel sampler gives them, such as mmseg's for OHEM."""
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 2, 4), torch.randint(3, (2, 2, 4))
    labels[0, 1] = IGNORED
    weight = torch.rand(2, 2, 4)
    criterion = FocalLoss(reduction=reduction)
    expected = criterion(logits, labels, weight=weight)
    with simulated_gpu() as gpu:
        loss = criterion(logits.to(gpu), labels.to(gpu), weight=weight.to(gpu))
        torch.testing.assert_close(loss.cpu(), expected)


def test_labels_that_are_one_hot_already():
    logits = torch.ones(1, 2, 2, 2)
    labels = torch.tensor([[[0, 1], [1, 1]]])
    one_hot = torch.stack([labels == 0, labels == 1], dim=1).long()
    torch.testing.assert_close(FocalLoss()(logits, one_hot), FocalLoss()(logits, labels))
