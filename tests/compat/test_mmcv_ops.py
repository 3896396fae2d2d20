"""Tests the replacements of mmcv's operators against their definitions."""

import mmcv._ext as extension
import mmcv.ops
import pytest
import torch
import torchvision
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)

from nat_mm.compat.mmcv_ops.deformable_attention import (
    ms_deform_attn_backward,
    ms_deform_attn_forward,
)
from nat_mm.compat.mmcv_ops.focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from nat_mm.compat.mmcv_ops.nms import nms
from nat_mm.compat.mmcv_ops.roi_align import roi_align_backward, roi_align_forward
from nat_mm.compat.mmcv_ops.soft_nms import softnms
from nat_mm.compat.mmcv_ops.unavailable import unavailable_op

MAX, AVERAGE = 0, 1
LOW_PRECISION = pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)


def random_boxes(count):
    corners = torch.rand(count, 2) * 60
    return torch.cat([corners, corners + torch.rand(count, 2) * 40], dim=1)


def overlap(first, second, offset):
    """Returns the IoU of two boxes given as lists of four numbers."""

    def area(x1, y1, x2, y2):
        return max(x2 - x1 + offset, 0) * max(y2 - y1 + offset, 0)

    common = area(*map(max, first[:2], second[:2]), *map(min, first[2:], second[2:]))
    return common / (area(*first) + area(*second) - common)


@pytest.mark.parametrize('offset', [0, 1])
def test_nms_keeps_what_no_better_box_covers(offset):
    torch.manual_seed(0)
    boxes, scores = random_boxes(60), torch.randperm(60) / 60
    kept = []
    for index in scores.argsort(descending=True).tolist():
        box = boxes[index].tolist()
        if all(overlap(box, boxes[other].tolist(), offset) <= 0.3 for other in kept):
            kept.append(index)
    assert 5 < len(kept) < 55
    assert nms(boxes, scores, iou_threshold=0.3, offset=offset).tolist() == kept


def test_nms_of_no_boxes():
    kept = nms(torch.empty(0, 4), torch.empty(0), iou_threshold=0.5, offset=0)
    assert kept.shape == (0,)
    assert kept.dtype == torch.int64


@LOW_PRECISION
def test_nms_in_low_precision_compares_in_fp32(dtype):
    torch.manual_seed(0)
    boxes, scores = random_boxes(60).to(dtype), (torch.randperm(60) / 64).to(dtype)
    kept = nms(boxes, scores, iou_threshold=0.3, offset=0)
    assert torch.equal(kept, nms(boxes.float(), scores.float(), iou_threshold=0.3, offset=0))


def test_softnms_linear_on_two_boxes():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60]])
    dets = torch.zeros(3, 5)
    indices = softnms(
        boxes, torch.tensor([0.9, 0.8, 0.5]), dets, iou_threshold=0.3, sigma=0.5,
        min_score=0.01, method=1, offset=0,
    )  # fmt: skip
    # The second box overlaps the first by one half, so its score is halved.
    assert indices.tolist() == [0, 2, 1]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.5, 0.4]))
    torch.testing.assert_close(dets[:, :4], boxes[[0, 2, 1]])


@pytest.mark.parametrize(
    ('method', 'kept'), [(0, 2), (1, 3), (2, 3)], ids=['hard', 'linear', 'gaussian']
)
def test_softnms_drops_low_scores(method, kept):
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]])
    indices = softnms(
        boxes, torch.tensor([0.9, 0.8, 0.5]), torch.zeros(3, 5), iou_threshold=0.3, sigma=0.5,
        min_score=0.05, method=method, offset=0,
    )  # fmt: skip
    assert len(indices) == kept


def align(features, rois, size, *, scale=1.0, ratio=0, mode=AVERAGE, aligned=True):
    output = features.new_zeros(len(rois), features.size(1), *size)
    argmax = output.clone(), output.clone()
    roi_align_forward(features, rois, output, *argmax, *size, scale, ratio, mode, aligned)
    return output, argmax


@pytest.mark.parametrize('aligned', [True, False], ids=['aligned', 'legacy'])
@pytest.mark.parametrize('mode', [AVERAGE, MAX], ids=['average', 'max'])
def test_roi_align_samples_a_plane_exactly(mode, aligned):
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing='ij')
    features = torch.stack([2 * columns + 3 * rows, -columns])[None]
    rois = torch.tensor([[0, 4.0, 6, 20, 14]])  # 16 wide and 8 high
    output, _ = align(features, rois, (2, 4), ratio=2, mode=mode, aligned=aligned)

    # Bins are 4 by 4 with samples at 1/4 and 3/4. If aligned, cell centers are at half-integers.
    shift = 0.5 if aligned else 0.0
    x, y = torch.tensor([6.0, 10, 14, 18]) - shift, torch.tensor([8.0, 12]) - shift
    reach = 1.0 if mode == MAX else 0.0
    expected = 2 * (x + reach) + 3 * (y[:, None] + reach), (-(x - reach)).expand(2, 4)
    torch.testing.assert_close(output[0], torch.stack(expected))


@pytest.mark.parametrize('ratio', [0, 2], ids=['adaptive', 'two-samples'])
@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_roi_align_gradient(mode, ratio):
    torch.manual_seed(0)
    features = torch.randn(2, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, 1.2, 0.7, 9.3, 8.1], [1, -3, 2.5, 20, 11]], dtype=torch.float64)

    def pooled(features):
        return mmcv.ops.roi_align(features, rois, (3, 2), 0.5, ratio, mode, True)

    assert torch.autograd.gradcheck(pooled, features)


@pytest.mark.parametrize('ratio', [0, 2], ids=['adaptive', 'two-samples'])
@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('corner', [torch.nan, torch.inf])
def test_roi_align_of_a_region_that_is_not_finite_is_nan(corner, mode, ratio):
    """torchvision's ended the process."""
    features = torch.ones(1, 2, 64, 64, requires_grad=True)
    rois = torch.tensor([[0, 1.0, 2, 9, 8], [0, 0, corner, corner, 5]])
    pooled = mmcv.ops.roi_align(features, rois, (3, 2), 1.0, ratio, mode, True)
    assert torch.equal(pooled[0], torch.ones(2, 3, 2))
    assert pooled[1].isnan().all()
    pooled[0].sum().backward()
    assert features.grad.sum() == 12


def test_roi_max_align_of_an_empty_region():
    output, (rows, columns) = align(
        torch.ones(1, 1, 4, 4), torch.tensor([[0, 2.0, 2, 2, 2]]), (1, 1), mode=MAX
    )
    assert (output.item(), rows.item(), columns.item()) == (-10000, -1, -1)


@LOW_PRECISION
@pytest.mark.parametrize('mode', [AVERAGE, MAX], ids=['average', 'max'])
def test_roi_align_in_low_precision_rounds_only_the_result(mode, dtype):
    torch.manual_seed(0)
    features = torch.randn(1, 3, 12, 12).to(dtype)
    rois = torch.tensor([[0, 1.3, 2.1, 9.7, 8.9]])
    output, _ = align(features, rois, (3, 3), mode=mode)
    exact, exact_argmax = align(features.float(), rois, (3, 3), mode=mode)
    assert torch.equal(output, exact.to(dtype))

    settings = (3, 3, 1.0, 0, mode, True)
    grad = torch.randn(1, 3, 3, 3).to(dtype)
    result, expected = torch.zeros_like(features), torch.zeros(1, 3, 12, 12)
    roi_align_backward(grad, rois, *exact_argmax, result, *settings)
    roi_align_backward(grad.float(), rois, *exact_argmax, expected, *settings)
    assert torch.equal(result, expected.to(dtype))


@pytest.mark.parametrize('weighted', [False, True], ids=['plain', 'class-weights'])
def test_sigmoid_focal_loss(weighted):
    torch.manual_seed(0)
    logits = (torch.randn(8, 4, dtype=torch.float64) * 4).requires_grad_()
    target = torch.tensor([0, 1, 2, 3, 0, 1, 2, 4])  # 4 is background
    one_hot = torch.nn.functional.one_hot(target, 5)[:, :4].double()
    weight = torch.rand(5, dtype=torch.float64) if weighted else torch.empty(0)
    expected = torchvision.ops.sigmoid_focal_loss(logits, one_hot, alpha=0.25, gamma=2.0)
    if weighted:
        expected = expected * weight[target, None]
    (expected_grad,) = torch.autograd.grad(expected.sum(), logits)

    loss, grad = torch.zeros(8, 4).double(), torch.zeros(8, 4).double()
    sigmoid_focal_loss_forward(logits.detach(), target, weight, loss, gamma=2.0, alpha=0.25)
    sigmoid_focal_loss_backward(logits.detach(), target, weight, grad, gamma=2.0, alpha=0.25)
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(grad, expected_grad)


def test_sigmoid_focal_loss_of_extreme_logits_is_finite():
    logits = torch.tensor([[1e4, -1e4]])
    loss, grad = torch.zeros(1, 2), torch.zeros(1, 2)
    for target in (0, 1):
        arguments = logits, torch.tensor([target]), torch.empty(0)
        sigmoid_focal_loss_forward(*arguments, loss, gamma=2.0, alpha=0.25)
        sigmoid_focal_loss_backward(*arguments, grad, gamma=2.0, alpha=0.25)
        assert torch.isfinite(loss).all()
        assert torch.isfinite(grad).all()


@pytest.fixture
def served_softmax_focal_loss(monkeypatch):
    # mmcv's CPU build lacks these operators.
    for operator in (softmax_focal_loss_forward, softmax_focal_loss_backward):
        monkeypatch.setattr(extension, operator.__name__, operator)


@pytest.mark.usefixtures('served_softmax_focal_loss')
@pytest.mark.parametrize('weighted', [False, True], ids=['plain', 'class-weights'])
@pytest.mark.parametrize('reduction', ['mean', 'sum'])
def test_softmax_focal_loss(weighted, reduction):
    torch.manual_seed(0)
    logits = (torch.randn(8, 4, dtype=torch.float64) * 4).requires_grad_()
    target = torch.tensor([0, 1, 2, 3, 0, 1, 2, -1])  # -1 is not a class
    weight = torch.rand(4, dtype=torch.float64) if weighted else None

    def loss(logits, reduction=reduction):
        return mmcv.ops.softmax_focal_loss(logits, target, 2.5, 0.25, weight, reduction)

    rows = torch.arange(7)
    probability = logits.detach().softmax(dim=1)[rows, target[:7]]
    expected = -0.25 * (1 - probability) ** 2.5 * probability.log()
    if weighted:
        expected = expected * weight[target[:7]]
    expected = torch.cat([expected, torch.zeros(1)])
    torch.testing.assert_close(loss(logits, 'none'), expected)
    total = expected.sum() if reduction == 'sum' else expected.sum() / 8
    torch.testing.assert_close(loss(logits), total)
    assert torch.autograd.gradcheck(loss, logits)


@pytest.mark.usefixtures('served_softmax_focal_loss')
def test_softmax_focal_loss_of_extreme_logits_is_finite():
    logits = torch.tensor([[1e4, -1e4], [1e4, -1e4]], requires_grad=True)
    loss = mmcv.ops.softmax_focal_loss(logits, torch.tensor([0, 1]), 2.0, 0.25, None, 'mean')
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def define_psamask(windows, psa_type, size):
    """Computes the mask as defined: each position has weights for the positions in its window."""
    batch, _, height, width = windows.shape
    spread = torch.zeros(batch, height, width, height, width, dtype=windows.dtype)
    for y, x, i, j in torch.cartesian_prod(*map(torch.arange, (height, width, *size))).tolist():
        row, column = y + i - (size[0] - 1) // 2, x + j - (size[1] - 1) // 2
        if 0 <= row < height and 0 <= column < width:
            weight = windows[:, i * size[1] + j, y, x]
            if psa_type == 'collect':
                spread[:, row, column, y, x] = weight
            else:
                spread[:, y, x, row, column] = weight
    return spread.flatten(1, 2)


@pytest.mark.parametrize('psa_type', ['collect', 'distribute'])
@pytest.mark.parametrize('size', [(3, 5), (9, 7), (4, 2)], ids=['small', 'whole', 'even'])
def test_psamask(psa_type, size):
    torch.manual_seed(0)
    layer = mmcv.ops.PSAMask(psa_type, size)
    windows = torch.randn(2, size[0] * size[1], 5, 4, dtype=torch.float64, requires_grad=True)
    expected = define_psamask(windows.detach(), psa_type, size)
    torch.testing.assert_close(layer(windows), expected)
    assert torch.autograd.gradcheck(layer, windows, fast_mode=True)


def deformable_attention_inputs(dtype):
    torch.manual_seed(0)
    shapes = torch.tensor([[4, 5], [2, 3]])
    value = torch.randn(2, 26, 2, 4, dtype=dtype)
    locations = torch.rand(2, 3, 2, 2, 4, 2, dtype=dtype) * 1.2 - 0.1
    weights = torch.rand(2, 3, 2, 2, 4, dtype=dtype)
    return shapes, [tensor.requires_grad_() for tensor in (value, locations, weights)]


def test_deformable_attention_and_its_gradients():
    shapes, inputs = deformable_attention_inputs(torch.float64)
    expected = multi_scale_deformable_attn_pytorch(inputs[0], shapes, *inputs[1:])
    grad = torch.randn_like(expected)
    expected_grads = torch.autograd.grad(expected, inputs, grad)

    arguments = [inputs[0].detach(), shapes, torch.tensor([0, 20])]
    arguments += [tensor.detach() for tensor in inputs[1:]]
    grads = [torch.zeros_like(tensor) for tensor in inputs]
    torch.testing.assert_close(ms_deform_attn_forward(*arguments, im2col_step=64), expected)
    ms_deform_attn_backward(*arguments, grad, *grads, im2col_step=64)
    for result, wanted in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(result, wanted)


@LOW_PRECISION
def test_deformable_attention_keeps_low_precision_dtypes(dtype, monkeypatch):
    # mmcv calls these operators only for CUDA tensors, but they also work on the CPU.
    monkeypatch.setattr(extension, 'ms_deform_attn_forward', ms_deform_attn_forward)
    monkeypatch.setattr(extension, 'ms_deform_attn_backward', ms_deform_attn_backward)
    shapes, inputs = deformable_attention_inputs(dtype)
    output = MultiScaleDeformableAttnFunction.apply(
        inputs[0], shapes, torch.tensor([0, 20]), *inputs[1:], 64
    )
    output.sum().backward()
    assert output.dtype == dtype
    for tensor in inputs:
        assert tensor.grad.dtype == dtype
        assert torch.isfinite(tensor.grad).all()


def test_other_operators_fail_only_when_called():
    stand_in = unavailable_op('border_align_forward')
    with pytest.raises(
        NotImplementedError, match=r'border_align_forward needs.*install mmcv==2\.1\.0'
    ):
        stand_in(torch.zeros(1))


def test_special_names_are_no_operators():
    with pytest.raises(AttributeError, match='__path__'):
        unavailable_op('__path__')
