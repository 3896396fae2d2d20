"""Tests that networks to be exported, here still in PyTorch, predict as mmdet and mmseg do."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from torch import nn

from nat_mm.errors import UserError
from nat_mm.export.detector import ExportedDetector
from nat_mm.export.program import AdaptiveAveragePooling
from nat_mm.export.regions import paste
from nat_mm.export.segmentor import ExportedSegmentor
from nat_mm.export.verification import agreement, compare, generated_images
from nat_mm.inference.model import Model
from tests.export.models import DETECTORS

Build = Callable[..., Model]


def in_pytorch(network: Any, outputs: tuple[str, ...]) -> Callable[..., Mapping[str, np.ndarray]]:
    """Runs a network as a runtime would after the export."""

    def run(image: np.ndarray) -> Mapping[str, np.ndarray]:
        size = torch.tensor(image.shape[2:])
        with torch.no_grad():
            found = network(torch.from_numpy(image), size, size)
        return dict(zip(outputs, (each.numpy() for each in found), strict=True))

    return run


@pytest.mark.parametrize('name', DETECTORS)
def test_detectors(detector: Build, name: str) -> None:
    model = detector(name)
    network = ExportedDetector(model.module)
    runtime = in_pytorch(network, network.outputs)
    alike = [
        each
        for image in generated_images()
        for each in compare(model, runtime, image, preprocess=False)
    ]
    assert len(alike) > 60
    assert agreement(alike) == 1


@pytest.mark.parametrize('name', ['Mask R-CNN', 'RetinaNet'])
def test_results_are_for_the_size_before_resizing(detector: Build, name: str) -> None:
    """Boxes also end where the padding begins."""
    model = detector(name)
    network = ExportedDetector(model.module)
    image = torch.randn(1, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    content, size = (90, 150), (180, 450)
    found = network(image, torch.tensor(content), torch.tensor(size))
    meta = dict(ori_shape=size, img_shape=content, scale_factor=(150 / 450, 90 / 180))
    with torch.no_grad():
        (sample,) = model.module.predict(image, [DetDataSample(metainfo=meta)])
    expected = sample.pred_instances
    assert len(expected) > 10
    torch.testing.assert_close(found[0], expected.bboxes, rtol=0, atol=1e-3)
    torch.testing.assert_close(found[1], expected.scores)
    assert found[2].equal(expected.labels)
    if name == 'Mask R-CNN':
        assert (found[3] == expected.masks).float().mean() > 0.9999


def test_segmentor(segmentor: Build) -> None:
    model = segmentor()
    runtime = in_pytorch(ExportedSegmentor(model.module), ('labels', 'scores'))
    for image in generated_images():
        assert compare(model, runtime, image, preprocess=False) == pytest.approx([1], abs=1e-3)


def test_one_class(segmentor: Build) -> None:
    """mmseg separates one class from the rest by a threshold."""
    model = segmentor(**{'model.decode_head.num_classes': 2, 'model.decode_head.out_channels': 1})
    network = ExportedSegmentor(model.module)
    image = next(generated_images())
    runtime = in_pytorch(network, ('labels', 'scores'))
    assert compare(model, runtime, image, preprocess=False) == pytest.approx([1], abs=1e-3)


def test_the_original_is_left_as_it_is(segmentor: Build) -> None:
    model = segmentor()
    ExportedSegmentor(model.module)
    assert any(isinstance(each, nn.AdaptiveAvgPool2d) for each in model.module.modules())
    assert all(each.requires_grad for each in model.module.parameters())


@pytest.mark.parametrize('size', [1, 3, (2, 5), (None, 4)], ids=str)
def test_adaptive_pooling(size: Any) -> None:
    features = torch.randn(2, 3, 7, 11)
    expected = nn.AdaptiveAvgPool2d(size)(features)
    torch.testing.assert_close(AdaptiveAveragePooling(size)(features), expected)


def test_masks_are_pasted_as_in_mmdet() -> None:
    """Masks partly outside the image are included."""
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    masks = torch.rand(3, 5, 5)
    boxes = torch.tensor([[2.0, 3, 30, 20], [-4, 8.5, 17, 50], [6, 6, 7, 7]])
    expected, _ = _do_paste_mask(masks[:, None], boxes, 41, 37, skip_empty=False)
    pixels = torch.arange(41) + 0.5
    torch.testing.assert_close(paste(masks, boxes, pixels, pixels[:37]), expected)


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        ({'model.test_cfg.mode': 'slide'}, 'sliding windows cannot be exported: --cfg-options'),
        ({'model.type': 'SegTTAModel'}, 'SegTTAModel cannot be exported as a whole: supported are'),
    ],
    ids=['slide', 'type'],
)
def test_refused_segmentors(segmentor: Build, overrides: dict[str, str], message: str) -> None:
    module: Any = SimpleNamespace()
    if 'model.type' not in overrides:
        module = segmentor(
            **overrides, **{'model.test_cfg.stride': (1, 1), 'model.test_cfg.crop_size': (2, 2)}
        ).module
    else:
        module = type('SegTTAModel', (), {})()
    with pytest.raises(UserError, match=message):
        ExportedSegmentor(module)


@pytest.mark.parametrize(
    ('name', 'overrides', 'message'),
    [
        (
            'Mask R-CNN',
            {'model.test_cfg.rcnn.nms.type': 'soft_nms'},
            'model.test_cfg.rcnn.nms.type is soft_nms, for which ONNX has no operator',
        ),
        (
            'RetinaNet',
            {'model.bbox_head.bbox_coder.clip_border': False},
            'RetinaHead has the box coder DeltaXYWHBBoxCoder: only .* with clip_border=True',
        ),
        (
            'Faster R-CNN',
            {'model.roi_head.type': 'DoubleHeadRoIHead', 'model.roi_head.reg_roi_scale_factor': 1},
            'a detector with DoubleHeadRoIHead cannot be exported as a whole: supported are',
        ),
        (
            'Faster R-CNN',
            {'model.roi_head.bbox_roi_extractor.roi_layer.pool_mode': 'max'},
            'regions need RoIAlign with pool_mode="avg"',
        ),
    ],
    ids=['soft NMS', 'box coder', 'head', 'pooling'],
)
def test_refused_detectors(
    detector: Build, name: str, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        ExportedDetector(detector(name, **overrides).module)
