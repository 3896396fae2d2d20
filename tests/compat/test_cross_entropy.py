"""Tests mmseg's CrossEntropyLoss on labels with ignored pixels, and with class weights."""

import inspect

import pytest
import torch
from mmseg.models.losses import CrossEntropyLoss, cross_entropy_loss
from torch.nn import functional

IGNORED = 255
WEIGHTS = [0.5, 2.0, 3.0]
SHAPES = pytest.mark.parametrize('shape', [(2, 5, 7), (11,)], ids=['images', 'vector'])
AVERAGES = pytest.mark.parametrize('avg_non_ignore', [False, True], ids=['all', 'non-ignored'])
REDUCTIONS = pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])


def draw(shape, channels=3, dtype=torch.float64):
    """Returns random logits and labels of a shape, without ignored pixels."""
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(shape[0], channels, *shape[1:], generator=generator).to(dtype)
    labels = torch.randint(max(channels, 2), shape, generator=generator)
    return logits.requires_grad_(), labels


def ignore(labels):
    """Returns the labels with some of them, among them a whole row of an image, ignored."""
    labels = labels.clone()
    labels[0] = labels.view(-1)[-3:] = IGNORED
    return labels


def compute(logits, labels, *, ignore_index=IGNORED, override=None, weight=None, **options):
    """Returns a CrossEntropyLoss, and the gradient of its sum."""
    criterion = CrossEntropyLoss(**options)
    loss = criterion(logits, labels, weight, reduction_override=override, ignore_index=ignore_index)
    return loss.detach(), torch.autograd.grad(loss.sum(), logits)[0]


def assert_same(results, expected):
    for result, wanted in zip(results, expected, strict=True):
        assert torch.equal(result, wanted)


@SHAPES
@AVERAGES
@REDUCTIONS
@pytest.mark.parametrize('class_weight', [None, WEIGHTS], ids=['equal', 'weighted'])
@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_without_ignored_pixels_nothing_changes(
    shape, avg_non_ignore, reduction, class_weight, dtype, monkeypatch
):
    logits, labels = draw(shape, dtype=dtype)
    options = dict(class_weight=class_weight, reduction=reduction)
    results = compute(logits, labels, avg_non_ignore=avg_non_ignore, **options)
    upstream = inspect.unwrap(cross_entropy_loss.cross_entropy)
    monkeypatch.setattr(cross_entropy_loss, 'cross_entropy', upstream)
    # In OneDL's fork, avg_non_ignore is always an error.
    assert_same(results, compute(logits, labels, **options))


@SHAPES
@AVERAGES
@REDUCTIONS
@pytest.mark.parametrize('ignore_index', [IGNORED, -100, -1])
def test_ignored_pixels_weigh_nothing_as_in_pytorch(shape, avg_non_ignore, reduction, ignore_index):
    logits, labels = draw(shape)
    labels = ignore(labels)
    labels[labels == IGNORED] = ignore_index
    loss, gradient = compute(
        logits,
        labels,
        ignore_index=ignore_index,
        class_weight=WEIGHTS,
        avg_non_ignore=avg_non_ignore,
        override=reduction,
    )
    expected = functional.cross_entropy(
        logits, labels, logits.new_tensor(WEIGHTS), ignore_index=ignore_index, reduction=reduction
    )
    # mmseg adds 1.2e-7 to the divisor.
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-7, atol=0)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-7, atol=1e-12)


@AVERAGES
@pytest.mark.parametrize('use_sigmoid', [False, True], ids=['softmax', 'sigmoid'])
@pytest.mark.parametrize('channels', [1, 3])
@REDUCTIONS
def test_if_all_pixels_are_ignored_the_loss_is_zero(
    avg_non_ignore, use_sigmoid, channels, reduction
):
    logits, labels = draw((2, 5, 7), channels)
    labels[:] = IGNORED
    loss, gradient = compute(
        logits,
        labels,
        class_weight=None if use_sigmoid else [2.0] * channels,
        use_sigmoid=use_sigmoid,
        avg_non_ignore=avg_non_ignore,
        override=reduction,
    )
    assert not loss.any()
    assert not gradient.any()
    of_each_pixel = (2, 3, 5, 7) if use_sigmoid and channels == 3 else (2, 5, 7)
    assert loss.shape == (of_each_pixel if reduction == 'none' else ())


@AVERAGES
@REDUCTIONS
@pytest.mark.parametrize('ignore_index', [IGNORED, None])
def test_the_binary_loss_of_other_pixels_is_unchanged(
    avg_non_ignore, reduction, ignore_index, monkeypatch
):
    logits, labels = draw((2, 5, 7), 1)
    labels = ignore(labels) if ignore_index else labels
    options = dict(
        use_sigmoid=True,
        avg_non_ignore=avg_non_ignore,
        override=reduction,
        ignore_index=ignore_index,
        weight=torch.rand(2, 5, 7),
    )
    results = compute(logits, labels, **options)
    upstream = inspect.unwrap(cross_entropy_loss.binary_cross_entropy)
    monkeypatch.setattr(cross_entropy_loss, 'binary_cross_entropy', upstream)
    assert_same(results, compute(logits, labels, **options))


@pytest.mark.parametrize('ignore_index', [0, 2])
def test_an_ignored_class_is_left_to_mmseg(ignore_index, monkeypatch):
    logits, labels = draw((2, 5, 7))
    options = dict(class_weight=WEIGHTS, ignore_index=ignore_index)
    results = compute(logits, labels, **options)
    upstream = inspect.unwrap(cross_entropy_loss.cross_entropy)
    monkeypatch.setattr(cross_entropy_loss, 'cross_entropy', upstream)
    assert_same(results, compute(logits, labels, **options))


def test_a_given_divisor_and_pixel_weights_are_kept():
    logits, labels = draw((2, 5, 7))
    labels = ignore(labels)
    weight = torch.rand(2, 5, 7, dtype=logits.dtype)
    each = functional.cross_entropy(
        logits, labels, logits.new_tensor(WEIGHTS), ignore_index=IGNORED, reduction='none'
    )
    criterion = CrossEntropyLoss(class_weight=WEIGHTS)
    loss = criterion(logits, labels, weight, avg_factor=4, ignore_index=IGNORED)
    assert loss.item() == pytest.approx((each * weight).sum().item() / 4)


@pytest.mark.parametrize('label', [3, -7])
def test_a_wrong_label_is_named(label):
    logits, labels = draw((2, 5, 7))
    labels[0, 0, 0] = label
    with pytest.raises(IndexError, match=f'Target {label} is out of bounds'):
        compute(logits, labels, class_weight=WEIGHTS)


@pytest.mark.parametrize('shape', [(2, 5, 7), (2, 5, 3), (11,)], ids=['images', 'square', 'vector'])
def test_class_weights_of_several_channels_with_sigmoid(shape):
    """As many columns as classes are no error upstream, but each column gets a class's weight."""
    logits, labels = draw(shape, dtype=torch.float32)
    loss, gradient = compute(logits, labels, class_weight=WEIGHTS, use_sigmoid=True)
    channels_last = logits.movedim(1, -1)
    expected = functional.binary_cross_entropy_with_logits(
        channels_last,
        functional.one_hot(labels, 3).float(),
        pos_weight=logits.new_tensor(WEIGHTS),
    )
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])
