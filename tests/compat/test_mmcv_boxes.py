"""Tests mmcv's operators on boxes and regions against their definitions."""

import math
from itertools import pairwise

import mmcv._ext as extension
import mmcv.ops
import numpy as np
import pytest
import torch
from mmcv.ops import RoIPool, batched_nms, bbox_overlaps, box_iou_rotated, nms_match, nms_rotated
from shapely.geometry import Polygon
from torch.autograd import gradcheck

from nat_mm.compat.mmcv_ops import box_overlaps
from nat_mm.compat.mmcv_ops.deform_roi_pool import deform_roi_pool_backward, deform_roi_pool_forward
from nat_mm.compat.mmcv_ops.roi_pool import roi_pool_backward, roi_pool_forward

MODES = pytest.mark.parametrize('mode', ['iou', 'iof'])
ALIGNED = pytest.mark.parametrize('aligned', [False, True], ids=['all-pairs', 'aligned'])


@pytest.fixture
def served_pooling(monkeypatch):
    # mmcv's CPU build lacks these operators.
    for operator in (
        roi_pool_forward, roi_pool_backward, deform_roi_pool_forward, deform_roi_pool_backward,
    ):  # fmt: skip
        monkeypatch.setattr(extension, operator.__name__, operator)


def random_boxes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 60
    sizes = torch.rand(count, 2, generator=generator) * 40
    return torch.cat([corners, corners + sizes], dim=1)


def random_rotated_boxes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(count, 5, generator=generator)
    return numbers * torch.tensor([60, 60, 40, 40, 9]) + torch.tensor([0, 0, 1, 1, -4.5])


def rectangle(box):
    """Returns the polygon of a box of 4 numbers, or of 5: rotated from x towards y."""
    if len(box) == 4:
        x1, y1, x2, y2 = box
        return Polygon([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])
    x, y, width, height, angle = box
    across = np.array([math.cos(angle), math.sin(angle)]) * width / 2
    down = np.array([-math.sin(angle), math.cos(angle)]) * height / 2
    signs = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    return Polygon([np.array([x, y]) + i * across + j * down for i, j in signs])


def define_overlaps(first, second, mode, aligned):
    def overlap(one, other):
        common = one.intersection(other).area
        return common / (one.union(other).area if mode == 'iou' else one.area)

    first, second = (list(map(rectangle, boxes.tolist())) for boxes in (first, second))
    if aligned:
        return torch.tensor([overlap(*pair) for pair in zip(first, second, strict=True)])
    return torch.tensor([[overlap(one, other) for other in second] for one in first])


@MODES
@ALIGNED
@pytest.mark.parametrize('offset', [0, 1])
def test_bbox_overlaps(mode, aligned, offset):
    first, second = random_boxes(15), random_boxes(15 if aligned else 9, seed=1)
    larger = torch.tensor([0, 0, offset, offset])
    expected = define_overlaps(first + larger, second + larger, mode, aligned)
    result = bbox_overlaps(first, second, mode, aligned, offset)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


@MODES
@ALIGNED
def test_box_iou_rotated(mode, aligned):
    first, second = random_rotated_boxes(60), random_rotated_boxes(60, seed=1)
    expected = define_overlaps(first, second, mode, aligned)
    result = box_iou_rotated(first, second, mode, aligned)
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=1e-5)
    mirrored = [boxes * torch.tensor([1, 1, 1, 1, -1]) for boxes in (first, second)]
    result = box_iou_rotated(*mirrored, mode, aligned, clockwise=False)
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize('angle', [0, 0.3, math.pi / 4, math.pi / 2, 2, math.pi, -9.1])
@pytest.mark.parametrize('center', [0, 700.3])
def test_rotated_boxes_with_common_edges(angle, center):
    box = torch.tensor([[center, center, 30.3, 20.1, angle]])
    turned = torch.tensor([[center, center, 20.1, 30.3, angle + math.pi / 2]])
    half = torch.tensor([[center, center, 30.3, 10.05, angle]])
    ious = torch.zeros(3)
    others = torch.cat([box, turned, half])
    box_overlaps.box_iou_rotated(box, others, ious, mode_flag=0, aligned=False)
    torch.testing.assert_close(ious, torch.tensor([1, 1, 0.5]), atol=1e-4, rtol=0)


def test_rotated_boxes_whose_edges_lie_on_one_line():
    # mmcv's operator gives wrong results for a fifth of these boxes.
    boxes = random_rotated_boxes(500) * torch.tensor([10, 10, 5, 5, 1])
    halves = boxes / torch.tensor([1, 1, 1, 2, 1])
    ious = torch.zeros(500)
    box_overlaps.box_iou_rotated(boxes, halves, ious, mode_flag=0, aligned=True)
    torch.testing.assert_close(ious, torch.full_like(ious, 0.5))


def test_rotated_boxes_apart_inside_and_without_area():
    box = torch.tensor([[0, 0, 4, 4, 0.2]])
    others = torch.tensor([[9.0, 0, 4, 4, 0], [0, 0, 1, 2, 0.2], [0, 0, 0, 3, 0], [0, 0, -1, 3, 0]])
    ious = box_iou_rotated(box, others)
    torch.testing.assert_close(ious, torch.tensor([[0, 2 / 16, 0, 0]]))


def test_overlaps_of_no_boxes():
    none, some = random_boxes(0), random_boxes(3)
    assert bbox_overlaps(none, some).shape == (0, 3)
    rotated = random_rotated_boxes(3)
    assert box_iou_rotated(rotated[:0], rotated).shape == (0, 3)
    assert box_iou_rotated(rotated, rotated[:0]).shape == (3, 0)
    assert box_iou_rotated(rotated[:0], rotated[:0], aligned=True).shape == (0,)


def test_rotated_overlaps_by_parts(monkeypatch):
    first, second = random_rotated_boxes(30), random_rotated_boxes(30, seed=1)
    expected, result = torch.zeros(900), torch.zeros(900)
    box_overlaps.box_iou_rotated(first, second, expected, 0, False)
    monkeypatch.setattr(box_overlaps, '_PAIRS_AT_A_TIME', 7)
    box_overlaps.box_iou_rotated(first, second, result, 0, False)
    torch.testing.assert_close(result, expected)


def test_nms_match():
    boxes, scores = random_boxes(60), (torch.randperm(60) + 1) / 61
    ious = bbox_overlaps(boxes, boxes)
    free, expected = set(range(60)), []
    for index in scores.argsort(descending=True).tolist():
        if index in free:
            group = [each for each in free if ious[index, each] >= 0.3 or each == index]
            expected.append(sorted(group, key=lambda each: -scores[each]))
            free -= set(group)
    groups = nms_match(torch.cat([boxes, scores[:, None]], dim=1), 0.3)
    assert [group.tolist() for group in groups] == expected
    assert 5 < len(groups) < 55
    assert nms_match(torch.zeros(0, 5), 0.3) == []


def define_nms_rotated(boxes, scores, threshold):
    ious = define_overlaps(boxes, boxes, 'iou', aligned=False)
    kept = []
    for index in scores.argsort(descending=True).tolist():
        if all(ious[index, other] < threshold for other in kept):
            kept.append(index)
    return kept


@pytest.mark.parametrize('with_labels', [False, True])
def test_nms_rotated(with_labels):
    boxes, scores = random_rotated_boxes(80), (torch.randperm(80) + 1) / 81
    # mmcv's operators ignore labels, too: they suppress boxes of all classes.
    labels = torch.arange(80) % 3 if with_labels else None
    dets, kept = nms_rotated(boxes, scores, 0.2, labels)
    assert kept.tolist() == define_nms_rotated(boxes, scores, 0.2)
    assert 5 < len(kept) < 75
    torch.testing.assert_close(dets, torch.cat([boxes[kept], scores[kept, None]], dim=1))


def test_batched_nms_of_rotated_boxes():
    box = torch.tensor([30.0, 30, 20, 10, 0.4])
    boxes, scores = torch.stack([box, box, box]), torch.tensor([0.5, 0.9, 0.7])
    settings = dict(type='nms_rotated', iou_threshold=0.3)
    _, kept = batched_nms(boxes, scores, torch.tensor([0, 0, 1]), settings)
    assert kept.tolist() == [1, 2]


def define_roi_pool(features, rois, size, scale):
    """Pools bin by bin as defined, with full regions at the borders: mmcv rounds only bins."""
    output = torch.zeros(len(rois), features.size(1), *size, dtype=features.dtype)
    height, width = features.shape[2:]
    for index, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = x1 * scale, y1 * scale, (x2 + 1) * scale, (y2 + 1) * scale
        rows = np.linspace(y1, y2, size[0] + 1)
        columns = np.linspace(x1, x2, size[1] + 1)
        for i, (top, bottom) in enumerate(pairwise(rows)):
            for j, (left, right) in enumerate(pairwise(columns)):
                top_cell, left_cell = max(math.floor(top), 0), max(math.floor(left), 0)
                bottom_cell = min(max(math.ceil(bottom), 0), height)
                right_cell = min(max(math.ceil(right), 0), width)
                cells = features[int(image), :, top_cell:bottom_cell, left_cell:right_cell]
                if cells.numel():
                    output[index, :, i, j] = cells.amax(dim=(1, 2))
    return output


# The regions are ordinary, partly outside, wholly outside and smaller than a cell.
ROIS = torch.tensor(
    [[0, 1.3, 2.1, 19.7, 11.2], [1, -8, -3, 9.3, 31], [1, 40, 40, 60, 60], [0, 5.2, 5.2, 5.2, 5.2]]
)


@pytest.mark.usefixtures('served_pooling')
def test_roi_pool():
    torch.manual_seed(0)
    features = torch.randn(2, 3, 10, 13, dtype=torch.float64, requires_grad=True)
    rois = ROIS.double()
    pool = RoIPool((3, 2), spatial_scale=0.6)
    expected = define_roi_pool(features.detach(), rois, (3, 2), 0.6)
    torch.testing.assert_close(pool(features, rois), expected)
    assert gradcheck(lambda features: pool(features, rois), features, fast_mode=True)


@pytest.mark.usefixtures('served_pooling')
def test_roi_pool_of_nothing():
    features = torch.randn(1, 3, 10, 13, requires_grad=True)
    pool = RoIPool((3, 2))
    assert pool(features, torch.zeros(0, 5)).shape == (0, 3, 3, 2)
    # With its corners in the wrong order, the region has no cells.
    pooled = pool(features, torch.tensor([[0, 8.0, 8, 2, 2]]))
    pooled.sum().backward()
    assert not pooled.any()
    assert not features.grad.any()


@pytest.mark.usefixtures('served_pooling')
@pytest.mark.parametrize('corner', [torch.nan, torch.inf, -torch.inf])
def test_roi_pool_of_a_region_that_is_not_finite_is_nan(corner):
    features = torch.ones(1, 2, 10, 13, requires_grad=True)
    rois = torch.tensor([[0, 1.0, 2, 9, 8], [0, corner, 2, 9, 8], [0, 1, 2, 9, corner]])
    pooled = RoIPool((3, 2))(features, rois)
    assert torch.equal(pooled[0], torch.ones(2, 3, 2))
    assert pooled[1:].isnan().all()
    pooled.sum().backward()
    assert features.grad.sum() == 12


@pytest.mark.usefixtures('served_pooling')
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_roi_pool_in_low_precision_rounds_only_the_features(dtype):
    torch.manual_seed(0)
    features = torch.randn(2, 3, 10, 13).to(dtype).requires_grad_()
    pooled = RoIPool((3, 2), spatial_scale=0.6)(features, ROIS.to(dtype))
    pooled.sum().backward()
    exact = define_roi_pool(features.detach().double(), ROIS.to(dtype), (3, 2), 0.6)
    assert torch.equal(pooled, exact.to(dtype))
    # One cell per bin, except the two bins in the last row of the second region, and the third
    # region.
    assert features.grad.sum() == 3 * (6 + 4 + 6)


@pytest.mark.usefixtures('served_pooling')
@pytest.mark.parametrize('ratio', [0, 2], ids=['adaptive', 'two-samples'])
def test_deform_roi_pool(ratio):
    torch.manual_seed(0)
    features = torch.randn(2, 3, 10, 13, dtype=torch.float64, requires_grad=True)
    offset = torch.randn(4, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    rois = ROIS.double()

    def pool(features, offset):
        return mmcv.ops.deform_roi_pool(features, rois, offset, (3, 2), 0.6, ratio, 0.1)

    expected = mmcv.ops.roi_align(features, rois, (3, 2), 0.6, ratio, 'avg', True)
    torch.testing.assert_close(pool(features, None), expected)
    torch.testing.assert_close(pool(features, torch.zeros_like(offset)), expected)
    # A region displaced by its whole size reads where another region lies.
    beside = rois.clone()
    beside[:, [1, 3]] += 0.1 * 4 * (rois[:, 3] - rois[:, 1])[:, None]
    expected = mmcv.ops.roi_align(features, beside, (3, 2), 0.6, ratio, 'avg', True)
    displaced = torch.tensor([4.0, 0]).double()[:, None, None].expand(4, 2, 3, 2)
    torch.testing.assert_close(pool(features, displaced), expected)
    assert gradcheck(pool, (features, offset), fast_mode=True)


@pytest.mark.usefixtures('served_pooling')
def test_deform_roi_pool_of_no_regions():
    features = torch.randn(1, 3, 10, 13, requires_grad=True)
    pooled = mmcv.ops.deform_roi_pool(features, torch.zeros(0, 5), None, (3, 2))
    pooled.sum().backward()
    assert pooled.shape == (0, 3, 3, 2)
    assert not features.grad.any()


@pytest.mark.usefixtures('served_pooling')
@pytest.mark.parametrize('layer_type', ['DeformRoIPoolPack', 'ModulatedDeformRoIPoolPack'])
def test_deform_roi_pool_layers(layer_type):
    layer = getattr(mmcv.ops, layer_type)((3, 2), 3, deform_fc_channels=8, spatial_scale=0.6)
    pooled = layer(torch.randn(2, 3, 10, 13), ROIS)
    pooled.sum().backward()
    assert pooled.shape == (4, 3, 3, 2)
    assert torch.isfinite(layer.offset_fc[-1].bias.grad).all()
