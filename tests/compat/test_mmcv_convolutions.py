"""Tests mmcv's deformable, masked and reassembling convolutions against their definitions.

The tests go through ``mmcv.ops``, so a compiled mmcv is compared with the same definitions.
"""

import math

import mmcv._ext as extension
import mmcv.ops
import pytest
import torch
from mmcv.cnn import build_conv_layer, build_upsample_layer
from torch.autograd import gradcheck
from torch.nn import functional as F

from nat_mm.compat.mmcv_ops.carafe import (
    carafe_backward,
    carafe_forward,
    carafe_naive_backward,
    carafe_naive_forward,
)
from nat_mm.compat.mmcv_ops.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from nat_mm.compat.mmcv_ops.masked_conv import masked_col2im_forward, masked_im2col_forward

STRIDE, PADDING, DILATION = (1, 2), (2, 1), (2, 1)
KERNEL = (3, 2)
MODULATED = pytest.mark.parametrize('modulated', [False, True], ids=['v1', 'v2'])
GROUPS = pytest.mark.parametrize(
    ('groups', 'deform_groups'), [(1, 1), (2, 1), (1, 2)], ids=['plain', 'groups', 'deform-groups']
)


def sample(plane, y, x):
    """Interpolates a plane, given as nested lists, at a point between its cells; 0 outside."""
    top, left = math.floor(y), math.floor(x)
    value = 0.0
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < len(plane) and 0 <= column < len(plane[0]):
                value += (1 - abs(y - row)) * (1 - abs(x - column)) * plane[row][column]
    return value


def define_deform_conv(x, offset, mask, weight, bias, groups, deform_groups):
    """Convolves cell by cell as defined, with mmcv's order of offsets: y and x alternate."""
    out_channels, channels, kernel_h, kernel_w = weight.shape
    output = torch.zeros(len(x), out_channels, *offset.shape[2:], dtype=x.dtype)
    for b, c_out, row, column in torch.cartesian_prod(*map(torch.arange, output.shape)).tolist():
        value = 0.0 if bias is None else bias[c_out].item()
        for c, i, j in torch.cartesian_prod(*map(torch.arange, weight.shape[1:])).tolist():
            c_in = c_out // (out_channels // groups) * channels + c
            cell = c_in // (x.size(1) // deform_groups) * kernel_h * kernel_w + i * kernel_w + j
            dy, dx = offset[b, 2 * cell : 2 * cell + 2, row, column].tolist()
            y = row * STRIDE[0] - PADDING[0] + i * DILATION[0] + dy
            place = column * STRIDE[1] - PADDING[1] + j * DILATION[1] + dx
            scale = 1.0 if mask is None else mask[b, cell, row, column].item()
            value += scale * weight[c_out, c, i, j].item() * sample(x[b, c_in].tolist(), y, place)
        output[b, c_out, row, column] = value
    return output


def deform_conv_inputs(modulated, groups, deform_groups):
    torch.manual_seed(0)
    cells = deform_groups * KERNEL[0] * KERNEL[1]
    x, offset = torch.randn(2, 4, 4, 5), torch.randn(2, 2 * cells, 4, 3) * 1.5
    weight, bias = torch.randn(2, 4 // groups, *KERNEL), torch.randn(2)
    mask = torch.rand(2, cells, 4, 3)
    inputs = (x, offset, mask, weight, bias) if modulated else (x, offset, weight)
    return [each.double().requires_grad_() for each in inputs]


def deform_conv(modulated, groups, deform_groups):
    operator = mmcv.ops.modulated_deform_conv2d if modulated else mmcv.ops.deform_conv2d
    return lambda *inputs: operator(*inputs, STRIDE, PADDING, DILATION, groups, deform_groups)


@MODULATED
@GROUPS
def test_deform_conv(modulated, groups, deform_groups):
    inputs = deform_conv_inputs(modulated, groups, deform_groups)
    output = deform_conv(modulated, groups, deform_groups)(*inputs)
    x, offset, *others = [each.detach() for each in inputs]
    mask, weight, bias = others if modulated else (None, *others, None)
    expected = define_deform_conv(x, offset, mask, weight, bias, groups, deform_groups)
    torch.testing.assert_close(output, expected)


@MODULATED
def test_deform_conv_is_nan_where_an_offset_is(modulated):
    """torchvision's ended the process."""
    inputs = deform_conv_inputs(modulated, 1, 1)
    expected = deform_conv(modulated, 1, 1)(*inputs).detach()
    expected[1, :, 2, 1] = torch.nan
    with torch.no_grad():
        inputs[1][1, 3, 2, 1] = torch.nan
    output = deform_conv(modulated, 1, 1)(*inputs)
    torch.testing.assert_close(output, expected, equal_nan=True)
    output.sum().backward()


@MODULATED
@GROUPS
def test_deform_conv_gradients(modulated, groups, deform_groups):
    inputs = deform_conv_inputs(modulated, groups, deform_groups)
    assert gradcheck(deform_conv(modulated, groups, deform_groups), inputs, fast_mode=True)


@MODULATED
def test_deform_conv_without_offsets_is_a_convolution(modulated):
    inputs = deform_conv_inputs(modulated, 1, 1)
    with torch.no_grad():
        inputs[1].zero_()
        if modulated:
            inputs[2].fill_(1)
    output = deform_conv(modulated, 1, 1)(*inputs)
    weight, bias = inputs[3:] if modulated else (inputs[2], None)
    torch.testing.assert_close(output, F.conv2d(inputs[0], weight, bias, STRIDE, PADDING, DILATION))


@MODULATED
def test_offsets_that_lead_just_out_of_the_image_have_no_gradient(modulated):
    x, offset, *others = deform_conv_inputs(modulated, 1, 2)
    offset = torch.zeros_like(offset, requires_grad=True)
    deform_conv(modulated, 1, 2)(x, offset, *others).sum().backward()
    grad = offset.grad.unflatten(1, (2, *KERNEL, 2)).abs().sum(dim=(0, 1, 4))
    for i, j, row, column in torch.cartesian_prod(*map(torch.arange, grad.shape)).tolist():
        y = row * STRIDE[0] - PADDING[0] + i * DILATION[0]
        place = column * STRIDE[1] - PADDING[1] + j * DILATION[1]
        assert (grad[i, j, row, column] > 0) == (0 <= y < 4 and 0 <= place < 5)


def test_offsets_of_a_larger_map_are_taken_as_they_lie_in_memory():
    # mmdet's DyHead passes such maps, and its checkpoints were trained with mmcv's operator.
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 2, 3, 4), torch.randn(3, 2, 3, 3), torch.randn(3)
    offset, mask = torch.randn(2, 18, 6, 8), torch.rand(2, 9, 6, 8)
    results = []
    for size in ((18, 6, 8), (9, 6, 8)), ((18, 3, 4), (9, 3, 4)):
        inputs = [
            each.flatten(1)[:, : torch.Size(shape).numel()].reshape(2, *shape).requires_grad_()
            for each, shape in zip((offset, mask), size, strict=True)
        ]
        output = mmcv.ops.modulated_deform_conv2d(x, *inputs, weight, bias, 1, 1)
        output.sin().sum().backward()
        results.append([output, *(each.grad.flatten(1)[:, : 9 * 12] for each in inputs)])
    for result, expected in zip(*results, strict=True):
        torch.testing.assert_close(result, expected)


def test_im2col_step_changes_nothing():
    torch.manual_seed(0)
    conv = mmcv.ops.DeformConv2d(2, 3, 3, padding=1, im2col_step=2)
    x, offset = torch.randn(4, 2, 5, 5), torch.randn(4, 18, 5, 5)
    expected = conv(x, offset)
    conv.im2col_step = 4
    torch.testing.assert_close(conv(x, offset), expected)


@pytest.fixture
def served_deform_conv(monkeypatch):
    # mmcv's CPU build does not support bf16.
    for operator in (
        deform_conv_forward, deform_conv_backward_input, deform_conv_backward_parameters,
        modulated_deform_conv_forward, modulated_deform_conv_backward,
    ):  # fmt: skip
        monkeypatch.setattr(extension, operator.__name__, operator)


@pytest.mark.usefixtures('served_deform_conv')
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@MODULATED
def test_deform_conv_in_low_precision(modulated, dtype):
    low = [each.detach().to(dtype).requires_grad_() for each in deform_conv_inputs(modulated, 1, 1)]
    exact = [each.detach().float().requires_grad_() for each in low]
    results = []
    for inputs in (low, exact):
        output = deform_conv(modulated, 1, 1)(*inputs)
        output.sum().backward()
        results.append([output, *(each.grad for each in inputs)])
    for result, expected in zip(*results, strict=True):
        assert result.dtype == dtype
        assert torch.equal(result, expected.to(dtype))


@pytest.mark.usefixtures('served_deform_conv')
@pytest.mark.parametrize('layer_type', ['DCN', 'DCNv2'])
def test_layers_train_under_autocast(layer_type):
    torch.manual_seed(0)
    layer = build_conv_layer(dict(type=layer_type, deform_groups=1), 3, 4, 3, padding=1)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        output = layer(torch.randn(2, 3, 6, 7))
    output.float().square().sum().backward()
    assert output.shape == (2, 4, 6, 7)
    assert output.dtype == torch.bfloat16
    for parameter in layer.parameters():
        assert parameter.grad.dtype == torch.float32
        assert torch.isfinite(parameter.grad).all()


def test_saconv():
    torch.manual_seed(0)
    layer = build_conv_layer(dict(type='SAC', use_deform=True), 3, 4, 3, padding=1, bias=False)
    output = layer(torch.randn(2, 3, 6, 7))
    output.sum().backward()
    assert output.shape == (2, 4, 6, 7)
    assert layer.weight.grad.any()


def test_masked_conv_is_a_convolution_at_the_chosen_places(monkeypatch):
    # mmcv's CPU build lacks these operators.
    monkeypatch.setattr(extension, 'masked_im2col_forward', masked_im2col_forward)
    monkeypatch.setattr(extension, 'masked_col2im_forward', masked_col2im_forward)
    torch.manual_seed(0)
    layer = mmcv.ops.MaskedConv2d(3, 4, (3, 5), padding=(1, 2))
    x, mask = torch.randn(1, 3, 6, 7), torch.rand(1, 6, 7) > 0.6
    everywhere = layer(x)
    torch.testing.assert_close(layer(x, mask), everywhere * mask)
    assert not layer(x, torch.zeros_like(mask)).any()


def define_carafe(features, masks, kernel_size, groups, scale):
    """Computes CARAFE cell by cell as defined."""
    batch, channels, height, width = features.shape
    output = torch.zeros(batch, channels, height * scale, width * scale, dtype=features.dtype)
    for b, c, row, column in torch.cartesian_prod(*map(torch.arange, output.shape)).tolist():
        for i in range(kernel_size):
            for j in range(kernel_size):
                y, x = row // scale + i - kernel_size // 2, column // scale + j - kernel_size // 2
                if 0 <= y < height and 0 <= x < width:
                    group = c // (channels // groups)
                    cell = group * kernel_size**2 + i * kernel_size + j
                    output[b, c, row, column] += masks[b, cell, row, column] * features[b, c, y, x]
    return output


@pytest.fixture
def served_carafe(monkeypatch):
    # mmcv's CPU build lacks these operators.
    for operator in (carafe_forward, carafe_backward, carafe_naive_forward, carafe_naive_backward):
        monkeypatch.setattr(extension, operator.__name__, operator)


@pytest.fixture
def carafe_inputs():
    torch.manual_seed(0)
    features, masks = torch.randn(2, 4, 3, 5).double(), torch.rand(2, 18, 6, 10).double()
    return features.requires_grad_(), masks.requires_grad_()


@pytest.mark.usefixtures('served_carafe')
def test_carafe(carafe_inputs):
    features, masks = (each.detach() for each in carafe_inputs)
    expected = define_carafe(features, masks, 3, groups=2, scale=2)
    torch.testing.assert_close(mmcv.ops.carafe(features, masks, 3, 2, 2), expected)
    torch.testing.assert_close(mmcv.ops.carafe_naive(features, masks, 3, 2, 2), expected)
    assert gradcheck(lambda *each: mmcv.ops.carafe(*each, 3, 2, 2), carafe_inputs, fast_mode=True)


@pytest.mark.usefixtures('served_carafe')
def test_carafe_naive_backward(carafe_inputs):
    # mmcv calls this operator only for CUDA tensors.
    output = mmcv.ops.carafe(*carafe_inputs, 3, 2, 2)
    grad = torch.randn_like(output)
    expected = torch.autograd.grad(output, carafe_inputs, grad)
    results = [torch.zeros_like(each) for each in carafe_inputs]
    carafe_naive_backward(grad, *(each.detach() for each in carafe_inputs), *results, 3, 2, 2)
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result, wanted)


@pytest.mark.usefixtures('served_carafe')
def test_carafe_layer():
    settings = dict(type='carafe', channels=8, scale_factor=2, up_kernel=5, up_group=1)
    layer = build_upsample_layer(settings)
    assert layer(torch.ones(1, 8, 4, 6)).shape == (1, 8, 8, 12)
