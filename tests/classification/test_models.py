"""Tests small classifiers of each family in mmpretrain: loss, gradients, predictions."""

import math

import pytest
import torch
from mmengine.registry import MODELS

pytest.importorskip('mmpretrain', reason='classification needs mmpretrain')

BASES = {
    'NAT': 'nat_mini_in1k_224',
    'DiNAT': 'dinat_large_in22k_in1k_384',
    'DiNAT_s': 'dinat_s_tiny_in1k_224',
}
CLASSES = 5


@pytest.fixture(params=BASES)
def small_model(request, load):
    config = load(BASES[request.param]).model.copy()
    small = dict(embed_dim=32, depths=(2, 1, 1, 1), num_heads=(1, 2, 4, 8), kernel_size=3)
    if request.param != 'NAT':
        small['dilations'] = [[1, 4], [2], [1], [1]]
    config.backbone = dict(type=request.param, out_indices=(3,), layer_scale=0.1, **small)
    config.head = dict(config.head, num_classes=CLASSES, in_channels=256)
    config.data_preprocessor = dict(
        num_classes=CLASSES, mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True
    )
    torch.manual_seed(0)
    model = MODELS.build(config)
    model.init_weights()
    return model


@pytest.fixture
def batch():
    """Images whose sides are not a whole number of tokens, with their labels."""
    from mmpretrain.structures import DataSample

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 70, 90), generator=generator, dtype=torch.uint8)
    samples = [DataSample().set_gt_label(label) for label in (0, 3, 4)]
    return {'inputs': images, 'data_samples': samples}


def test_every_parameter_gets_a_gradient(small_model, batch):
    small_model.train()
    data = small_model.data_preprocessor(batch, training=True)
    losses = small_model(**data, mode='loss')
    assert losses.keys() == {'loss'}
    losses['loss'].backward()
    # Before training, all labels are equally likely.
    assert losses['loss'].item() == pytest.approx(math.log(CLASSES), rel=0.1)
    for name, parameter in small_model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_scores_are_probabilities(small_model, batch):
    small_model.eval()
    with torch.no_grad():
        samples = small_model.test_step(batch)
    scores = torch.stack([sample.pred_score for sample in samples])
    assert scores.shape == (3, CLASSES)
    torch.testing.assert_close(scores.sum(1), torch.ones(3))
    assert [int(sample.pred_label) for sample in samples] == scores.argmax(1).tolist()
    # An image alone gets the same scores.
    alone = {'inputs': batch['inputs'][1:2], 'data_samples': batch['data_samples'][1:2]}
    with torch.no_grad():
        (sample,) = small_model.test_step(alone)
    torch.testing.assert_close(sample.pred_score, scores[1])
