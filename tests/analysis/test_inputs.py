"""Tests how an image becomes the input of a backbone."""

import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile, Resize
from mmengine.config import Config
from mmengine.model import ImgDataPreprocessor
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from nat_mm.analysis import prepare_image
from nat_mm.inference.inputs import Frame

MEAN, STD = [10.0, 20.0, 30.0], [2.0, 4.0, 8.0]
RESIZE = {
    'mmdet': [dict(type='Resize', scale=(96, 64), keep_ratio=True)],
    'mmseg': [dict(type='Resize', scale=(160, 60))],
    'mmpretrain': [dict(type='ResizeEdge', scale=70, edge='short'), dict(type='CenterCrop')],
}
PREPROCESSORS = {
    'mmdet': dict(type='DetDataPreprocessor', bgr_to_rgb=True, pad_size_divisor=32),
    'mmseg': dict(type='SegDataPreProcessor', bgr_to_rgb=True, test_cfg=dict(size_divisor=32)),
    'mmpretrain': dict(type='ClsDataPreprocessor', to_rgb=True),
}
SHAPES = {
    # resized (height, width), then padded
    'mmdet': ((64, 77), (64, 96)),
    'mmseg': ((60, 160), (64, 160)),
    'mmpretrain': ((70, 84), (70, 84)),
}


def make_model(scope):
    """Makes a config and a model of a toolbox, reduced to what `prepare_image` reads."""
    pipeline = [dict(type='LoadImageFromFile'), *RESIZE[scope], dict(type='PackInputs')]
    config = Config(
        dict(default_scope=scope, test_dataloader=dict(dataset=dict(pipeline=pipeline)))
    )
    model = nn.Module()
    with DefaultScope.overwrite_default_scope(scope):
        model.data_preprocessor = MODELS.build(dict(PREPROCESSORS[scope], mean=MEAN, std=STD))
    return model, config


@pytest.mark.parametrize('scope', SHAPES)
def test_images_are_resized_as_in_tests_but_not_cropped(scope):
    model, config = make_model(scope)
    prepared = prepare_image(model, config, np.zeros((50, 60, 3), np.uint8))
    resized, padded = SHAPES[scope]
    assert prepared.resized.shape[:2] == resized
    assert prepared.tensor.shape == (1, 3, *padded)
    assert prepared.scale == pytest.approx((resized[1] / 60, resized[0] / 50))


def test_pipeline_of_several_test_datasets():
    model, config = make_model('mmseg')
    image = np.zeros((50, 60, 3), np.uint8)
    expected = prepare_image(model, config, image).tensor.shape
    dataset = config.test_dataloader.dataset
    config.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[dataset, dataset])
    assert prepare_image(model, config, image).tensor.shape == expected


def test_pipeline_that_names_classes_by_themselves():
    """As mmengine's pure Python configs do."""
    model, config = make_model('mmseg')
    config.test_dataloader.dataset.pipeline = [
        dict(type=LoadImageFromFile),
        dict(type=Resize, scale=(160, 60)),
    ]
    prepared = prepare_image(model, config, np.zeros((50, 60, 3), np.uint8))
    assert prepared.resized.shape[:2] == (60, 160)


@pytest.mark.parametrize('scope', SHAPES)
def test_channels_are_normalized_in_the_order_of_the_model(scope):
    model, config = make_model(scope)
    image = np.empty((50, 60, 3), np.uint8)
    image[:] = (38, 24, 12)  # blue, green, red: each its mean plus one standard deviation
    prepared = prepare_image(model, config, image)
    height, width = prepared.resized.shape[:2]
    torch.testing.assert_close(
        prepared.tensor[..., :height, :width], torch.ones(1, 3, height, width)
    )


@pytest.mark.parametrize('short_side', [None, 200], ids=str)
@pytest.mark.parametrize('scope', SHAPES)
def test_points_follow_the_image(scope, short_side):
    model, config = make_model(scope)
    image = np.zeros((50, 60, 3), np.uint8)
    image[38:43, 8:13] = 255
    prepared = prepare_image(model, config, image, short_side=short_side)
    bright = (prepared.tensor[0].mean(0) > 10).nonzero().float() + 0.5
    y, x = bright.mean(0).tolist()
    assert (x, y) == pytest.approx(prepared.to_tensor((10.5, 40.5)), abs=1)
    if short_side:
        assert prepared.resized.shape[:2] == (200, 240)


@pytest.mark.parametrize('short_side', [None, 200], ids=str)
@pytest.mark.parametrize('channels', [1, 5])
def test_model_gets_what_was_loaded_and_drawings_8_bits(channels, short_side):
    model, config = make_model('mmseg')
    if channels == 5 and isinstance(model.data_preprocessor, ImgDataPreprocessor):
        pytest.skip('onedl-mmsegmentation takes images of 1 or 3 channels')
    mean, std = [1000.0] * channels, [500.0] * channels
    preprocessor = dict(PREPROCESSORS['mmseg'], mean=mean, std=std, bgr_to_rgb=False)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model.data_preprocessor = MODELS.build(preprocessor)
    pixels = np.full((50, 60, channels), 1500, np.uint16)
    drawing = np.full((50, 60, 3), 77, np.uint8)
    frame = Frame(drawing, 'image', 'image', results={'img': pixels.squeeze()})
    prepared = prepare_image(model, config, frame, short_side=short_side)
    height, width = prepared.resized.shape[:2]
    assert (prepared.resized.dtype, set(prepared.resized.ravel())) == (np.uint8, {77})
    torch.testing.assert_close(
        prepared.tensor[..., :height, :width], torch.ones(1, channels, height, width)
    )


@pytest.mark.parametrize(
    ('shape', 'short_side', 'message'),
    [
        ((50, 60, 3), 31, 'short_side must be at least 32, got 31'),
        ((3, 200, 3), None, 'must have 32 pixels on each side .* got 160 x 2'),
    ],
    ids=['short-side', 'elongated'],
)
def test_images_too_small_for_a_backbone_are_refused(shape, short_side, message):
    model, config = make_model('mmseg')
    config.test_dataloader.dataset.pipeline[1].keep_ratio = True
    with pytest.raises(ValueError, match=message):
        prepare_image(model, config, np.zeros(shape, np.uint8), short_side=short_side)
