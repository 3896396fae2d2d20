"""Tests gradient saliency on models whose gradients are known."""

import numpy as np
import pytest
import torch
from torch import nn

from nat_mm.analysis.prepared_image import PreparedImage
from nat_mm.analysis.saliency import Saliency, difference, saliency, smoothed
from tests.analysis.conftest import make_backbone


class LinearModel(nn.Module):
    """A detector reduced to what saliency uses, with a weighted sum of the pixels as feature."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def backbone(self, image):
        return (image, (image * self.weight).sum()[None])


def make_classifier(weights):
    """Makes an mmpretrain classifier whose logits are weighted sums of the pixels."""
    from mmpretrain.models import BaseClassifier

    class Classifier(BaseClassifier):
        with_head = True

        def extract_feat(self, inputs):
            raise NotImplementedError

        def forward(self, inputs, mode):
            assert mode == 'tensor'
            return torch.einsum('bchw,kchw->bk', inputs, weights)

    return Classifier()


def test_of_a_detector_it_is_the_gradient_of_the_features_norm():
    weight = torch.randn(3, 8, 10)
    found = saliency(LinearModel(weight), torch.randn(1, 3, 8, 10))
    assert found.label is None
    torch.testing.assert_close(found.magnitude, weight.norm(dim=0))


def test_of_a_classifier_it_is_the_gradient_of_the_highest_logit():
    weights = torch.randn(4, 3, 8, 10)
    found = saliency(make_classifier(weights), weights[2:3] * 5)
    assert found.label == 2
    torch.testing.assert_close(found.magnitude, weights[2].norm(dim=0))


def test_samples_are_the_mean_over_noisy_images():
    class Square(nn.Module):
        def backbone(self, image):
            return (image.square().sum()[None] / 2,)

    image = torch.full((1, 1, 40, 40), 2.0)
    image[..., 0] = 0
    plain = saliency(Square(), image)
    torch.testing.assert_close(plain.magnitude, image[0, 0])
    smooth = saliency(Square(), image, samples=50).magnitude
    assert smooth[:, 1:].mean().item() == pytest.approx(2, abs=0.02)
    # The mean of |noise| with standard deviation 0.15 * 2 is 0.3 * sqrt(2 / pi).
    assert smooth[:, 0].mean().item() == pytest.approx(0.239, abs=0.03)
    torch.testing.assert_close(smooth, saliency(Square(), image, samples=50).magnitude)
    with pytest.raises(ValueError, match='samples must be at least 1, got 0'):
        saliency(Square(), image, samples=0)


def test_a_backbone_has_saliency_everywhere_and_keeps_no_gradients():
    model = nn.ModuleDict({'backbone': make_backbone('NAT')})
    model.backbone = model['backbone']
    found = saliency(model, torch.randn(1, 3, 64, 80))
    assert found.magnitude.shape == (64, 80)
    assert (found.magnitude > 0).all()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_drawn_values_leave_out_padding_and_peak_where_the_gradient_does():
    magnitude = torch.zeros(64, 96)
    magnitude[20:24, 30:34] = 1
    magnitude[:, 80:] = 100
    prepared = PreparedImage(torch.empty(1), np.zeros((60, 80, 3), np.uint8), (1.0, 1.0))
    values = smoothed(prepared, Saliency(magnitude, None))
    assert values.shape == (60, 80)
    assert values.max() == 1
    assert values[20:24, 30:34].min() > 0.5
    assert values[:10].max() == 0


def test_difference_is_that_of_the_drawn_maps():
    def prepare(height, width):
        pixels = np.zeros((height, width, 3), np.uint8)
        return PreparedImage(torch.zeros(1, 3, height, width), pixels, (1.0, 1.0))

    left, right = torch.zeros(40, 60), torch.zeros(40, 60)
    left[:, :20], right[:, 40:] = 1, 5
    first = prepare(40, 60), Saliency(left, None)
    found = difference(first, (prepare(40, 60), Saliency(right, None)))
    assert found[20, 5] == pytest.approx(1, abs=1e-3)
    assert found[20, 55] == pytest.approx(-1, abs=1e-3)
    assert found[20, 30] == pytest.approx(0, abs=1e-3)
    larger = right.repeat_interleave(2, 0).repeat_interleave(2, 1)
    resized = difference(first, (prepare(80, 120), Saliency(larger, None)))
    assert resized.shape == (40, 60)
    np.testing.assert_allclose(resized[:, ::10], found[:, ::10], atol=0.1)
