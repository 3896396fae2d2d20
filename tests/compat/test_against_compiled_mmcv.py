"""The replacements of mmcv's operators against the compiled ones, where those are installed.

mmcv's CPU build has nms, soft-nms and RoIAlign; focal loss and deformable attention exist only in
its CUDA build and are compared with their definitions in test_mmcv_ops.py.
"""

import mmcv._ext as compiled
import pytest
import torch
from mmcv.ops import batched_nms

from nat_mm.compat.mmcv_ops.nms import nms
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
    scores = (torch.randperm(count, generator=generator) + 1) / (count + 1)  # no two alike
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
