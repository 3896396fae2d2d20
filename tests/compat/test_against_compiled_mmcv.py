"""Compares the replacements of mmcv's operators with the compiled ones, if installed.

The other tests of the operators compare what exists only in mmcv's CUDA build, such as focal loss,
RoIPool and deformable attention, with its definition.
"""

import mmcv._ext as compiled
import mmcv.ops
import pytest
import torch
from mmcv.ops import batched_nms

from nat_mm.compat.mmcv_ops import box_overlaps, deform_conv, psamask
from nat_mm.compat.mmcv_ops.nms import nms, nms_match, nms_rotated
from nat_mm.compat.mmcv_ops.roi_align import roi_align_backward, roi_align_forward
from nat_mm.compat.mmcv_ops.soft_nms import softnms

pytestmark = pytest.mark.skipif(
    compiled.__spec__.origin == 'nat_mm.compat.mmcv_ops',
    reason='needs a compiled mmcv; this is mmcv-lite, for which nat_mm serves mmcv._ext itself',
)
MAX, AVERAGE = 0, 1
OFFSETS = pytest.mark.parametrize('offset', [0, 1])


def random_detections(count, seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 300
    sizes = torch.rand(count, 2, generator=generator) * 100
    scores = (torch.randperm(count, generator=generator) + 1) / (count + 1)  # all different
    return torch.cat([corners, corners + sizes], dim=1), scores


@OFFSETS
@pytest.mark.parametrize('iou_threshold', [0.1, 0.5, 0.7])
@pytest.mark.parametrize('count', [0, 1, 40, 1500])
def test_nms(count, iou_threshold, offset):
    for seed in range(5):
        arguments = (*random_detections(count, seed), iou_threshold, offset)
        assert torch.equal(nms(*arguments), compiled.nms(*arguments))


@pytest.mark.parametrize('count', [10, 200, 1500])
def test_nms_with_equal_scores(count):
    for seed in range(20):
        boxes, scores = random_detections(count, seed)
        arguments = (boxes, (scores * 8).round() / 8, 0.5, 0)
        assert torch.equal(nms(*arguments), compiled.nms(*arguments))


@pytest.mark.parametrize('split_thr', [10000, 100], ids=['at-once', 'class-by-class'])
def test_batched_nms(split_thr, monkeypatch):
    boxes, scores = random_detections(800, seed=0)
    classes = torch.randint(0, 20, (800,), generator=torch.Generator().manual_seed(0))
    settings = {'type': 'nms', 'iou_threshold': 0.5, 'split_thr': split_thr}
    expected = batched_nms(boxes, scores, classes, settings)
    monkeypatch.setattr(compiled, 'nms', nms)
    result = batched_nms(boxes, scores, classes, settings)
    assert torch.equal(result[0], expected[0])
    assert torch.equal(result[1], expected[1])


@OFFSETS
@pytest.mark.parametrize('method', [0, 1, 2], ids=['hard', 'linear', 'gaussian'])
@pytest.mark.parametrize('count', [0, 1, 300])
def test_softnms(count, method, offset):
    for seed in range(5):
        boxes, scores = random_detections(count, seed)
        settings = (0.3, 0.5, 0.05, method, offset)
        dets, expected_dets = torch.zeros(count, 5), torch.zeros(count, 5)
        indices = softnms(boxes, scores, dets, *settings)
        expected = compiled.softnms(boxes, scores, expected_dets, *settings)
        assert torch.equal(indices, expected)
        kept = len(expected)
        torch.testing.assert_close(dets[:kept], expected_dets[:kept])


@pytest.mark.parametrize('aligned', [True, False], ids=['aligned', 'legacy'])
@pytest.mark.parametrize('ratio', [0, 2], ids=['adaptive', 'two-samples'])
@pytest.mark.parametrize('mode', [AVERAGE, MAX], ids=['average', 'max'])
def test_roi_align(mode, ratio, aligned):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 8, 25, 38, generator=generator)
    boxes, _ = random_detections(60, seed=0)
    boxes[:5] -= 150  # partly or fully outside
    rois = torch.cat([torch.arange(60)[:, None] % 2, boxes], dim=1)
    settings = (7, 5, 1 / 8, ratio, mode, aligned)
    shape = (60, 8, 7, 5)

    results = []
    grad = torch.randn(shape, generator=generator)
    for forward, backward in (
        (roi_align_forward, roi_align_backward),
        (compiled.roi_align_forward, compiled.roi_align_backward),
    ):
        output, rows, columns = (torch.zeros(shape) for _ in range(3))
        grad_features = torch.zeros_like(features)
        forward(features, rois, output, rows, columns, *settings)
        backward(grad, rois, rows, columns, grad_features, *settings)
        results.append((output, rows, columns, grad_features))
    for result, expected in zip(*results, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def random_rotated_boxes(count, seed):
    boxes, scores = random_detections(count, seed)
    angles = torch.rand(count, 1, generator=torch.Generator().manual_seed(seed)) * 9 - 4.5
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2], angles], dim=1), scores


@pytest.mark.parametrize('iou_threshold', [0.1, 0.5])
@pytest.mark.parametrize('count', [1, 40, 600])
def test_nms_match(count, iou_threshold):
    for seed in range(5):
        boxes, scores = random_detections(count, seed)
        dets = torch.cat([boxes, scores[:, None]], dim=1)
        assert nms_match(dets, iou_threshold) == compiled.nms_match(dets, iou_threshold)


@pytest.mark.parametrize('multi_label', [False, True], ids=['boxes', 'labeled-boxes'])
@pytest.mark.parametrize('iou_threshold', [0.1, 0.5])
@pytest.mark.parametrize('count', [1, 40, 300])
def test_nms_rotated(count, iou_threshold, multi_label):
    for seed in range(5):
        boxes, scores = random_rotated_boxes(count, seed)
        labels = torch.arange(count) % 3
        if multi_label:
            boxes = torch.cat([boxes, labels[:, None]], dim=1)
        order = scores.sort(descending=True).indices
        arguments = (boxes, scores, order, boxes[order], labels, iou_threshold, multi_label)
        assert torch.equal(nms_rotated(*arguments), compiled.nms_rotated(*arguments))


@pytest.mark.parametrize('mode', [0, 1], ids=['iou', 'iof'])
@pytest.mark.parametrize('aligned', [False, True], ids=['all-pairs', 'aligned'])
def test_overlaps(mode, aligned):
    first, second = (random_rotated_boxes(150, seed)[0] for seed in (0, 1))
    shape = (150,) if aligned else (150 * 150,)
    result, expected = torch.zeros(shape), torch.zeros(shape)
    box_overlaps.box_iou_rotated(first, second, result, mode, aligned)
    compiled.box_iou_rotated(first, second, expected, mode, aligned)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)

    shape = (150,) if aligned else (150, 150)
    first, second = (random_detections(150, seed)[0] for seed in (0, 1))
    for offset in (0, 1):
        result, expected = torch.zeros(shape), torch.zeros(shape)
        box_overlaps.bbox_overlaps(first, second, result, mode, aligned, offset)
        compiled.bbox_overlaps(first, second, expected, mode, aligned, offset)
        torch.testing.assert_close(result, expected)


def run(operator, inputs, monkeypatch, module=None):
    """Returns output and gradients, with a module's operators in place of the compiled ones."""
    for name in vars(module) if module else ():
        if hasattr(compiled, name):
            monkeypatch.setattr(compiled, name, getattr(module, name))
    inputs = [each.clone().requires_grad_() for each in inputs]
    output = operator(*inputs)
    output.sin().sum().backward()
    return output, *(each.grad for each in inputs)


@pytest.mark.parametrize('modulated', [False, True], ids=['v1', 'v2'])
@pytest.mark.parametrize('spread', [0, 1], ids=['plain', 'deformed'])
@pytest.mark.parametrize(('groups', 'deform_groups'), [(1, 1), (2, 1), (1, 4), (4, 2)])
def test_deform_conv(modulated, spread, groups, deform_groups, monkeypatch):
    torch.manual_seed(0)
    cells = deform_groups * 6
    x, offset, mask = torch.randn(3, 8, 12, 15), torch.randn(3, 2 * cells, 12, 8), None
    weight, mask = torch.randn(4, 8 // groups, 3, 2), torch.rand(3, cells, 12, 8)
    offset *= spread
    settings = ((1, 2), (2, 1), (2, 1), groups, deform_groups)
    if modulated:
        operator, inputs = (
            mmcv.ops.modulated_deform_conv2d,
            (x, offset, mask, weight, torch.ones(4)),
        )
    else:
        operator, inputs = mmcv.ops.deform_conv2d, (x, offset, weight)

    def convolve(*inputs):
        return operator(*inputs, *settings)

    expected = run(convolve, inputs, monkeypatch)
    for result, wanted in zip(
        run(convolve, inputs, monkeypatch, deform_conv), expected, strict=True
    ):
        torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-4)


def test_modulated_deform_conv_with_offsets_of_a_larger_map(monkeypatch):
    torch.manual_seed(0)
    inputs = [torch.randn(2, 2, 5, 6), torch.randn(2, 18, 10, 12), torch.rand(2, 9, 10, 12)]
    inputs += [torch.randn(3, 2, 3, 3), torch.randn(3)]

    def convolve(*inputs):
        return mmcv.ops.modulated_deform_conv2d(*inputs, 1, 1)

    expected = run(convolve, inputs, monkeypatch)
    for result, wanted in zip(
        run(convolve, inputs, monkeypatch, deform_conv), expected, strict=True
    ):
        torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('psa_type', ['collect', 'distribute'])
@pytest.mark.parametrize('size', [(3, 5), (13, 17), (4, 2)], ids=['small', 'whole', 'even'])
def test_psamask(psa_type, size, monkeypatch):
    layer = mmcv.ops.PSAMask(psa_type, size)
    inputs = [torch.randn(2, size[0] * size[1], 7, 9)]
    expected = run(layer, inputs, monkeypatch)
    for result, wanted in zip(run(layer, inputs, monkeypatch, psamask), expected, strict=True):
        assert torch.equal(result, wanted)
