"""Deformable convolution (arXiv 1703.06211) and its modulated form (arXiv 1811.11168).

Both use torchvision's, whose offsets have mmcv's order: y and x of each kernel cell in turn.
"""

import torch
import torchvision
from torch import Tensor

from .precision import at_least_fp32


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,  # noqa: N803
    kH: int,  # noqa: N803
    dW: int,  # noqa: N803
    dH: int,  # noqa: N803
    padW: int,  # noqa: N803
    padH: int,  # noqa: N803
    dilationW: int,  # noqa: N803
    dilationH: int,  # noqa: N803
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Convolve ``input`` sampled at the kernel's displaced cells; NaN where an offset is NaN.

    Args:
        input: [B, C_in, H, W].
        weight: [C_out, C_in / group, kH, kW].
        offset: [B, 2 * deformable_group * kH * kW, H_out, W_out].
        output: [B, C_out, H_out, W_out], written.
        columns: Buffer of the compiled operator; not used.
        ones: The same.
        kW: Width of the kernel; not used, since it follows from ``weight``.
        kH: Height of the kernel; not used.
        dW: Horizontal stride.
        dH: Vertical stride.
        padW: Zeros at the left and right.
        padH: Zeros at the top and bottom.
        dilationW: Distance between the kernel's columns.
        dilationH: Distance between the kernel's rows.
        group: Number of groups of the convolution; not used, since torchvision infers it from
            shapes.
        deformable_group: Number of channel groups with their own offsets; likewise.
        im2col_step: Number of images that the compiled operator processes at a time; not used.
    """
    input, offset, weight = map(at_least_fp32, (input, offset, weight))
    convolved = torchvision.ops.deform_conv2d(
        input,
        _without_nan(offset),
        weight,
        stride=(dH, dW),
        padding=(padH, padW),
        dilation=(dilationH, dilationW),
    )
    output.copy_(convolved.masked_fill(_has_nan(offset), torch.nan))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,  # noqa: N803
    gradInput: Tensor,  # noqa: N803
    gradOffset: Tensor,  # noqa: N803
    weight: Tensor,
    columns: Tensor,
    kW: int,  # noqa: N803
    kH: int,  # noqa: N803
    dW: int,  # noqa: N803
    dH: int,  # noqa: N803
    padW: int,  # noqa: N803
    padH: int,  # noqa: N803
    dilationW: int,  # noqa: N803
    dilationH: int,  # noqa: N803
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Add the gradients of the input and the offsets to ``gradInput`` and ``gradOffset``.

    The other arguments are as in :func:`deform_conv_forward`.
    """
    settings = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    grad_input, _, grad_offset, _, _ = _backward(gradOutput, input, weight, offset, None, settings)
    gradInput.add_(grad_input)
    gradOffset.add_(grad_offset)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,  # noqa: N803
    gradWeight: Tensor,  # noqa: N803
    columns: Tensor,
    ones: Tensor,
    kW: int,  # noqa: N803
    kH: int,  # noqa: N803
    dW: int,  # noqa: N803
    dH: int,  # noqa: N803
    padW: int,  # noqa: N803
    padH: int,  # noqa: N803
    dilationW: int,  # noqa: N803
    dilationH: int,  # noqa: N803
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add ``scale`` times the gradient of the weight to ``gradWeight``.

    The other arguments are as in :func:`deform_conv_forward`.
    """
    settings = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    # The weight is not among the arguments, but the gradient does not depend on it.
    _, grad_weight, _, _, _ = _backward(gradOutput, input, gradWeight, offset, None, settings)
    gradWeight.add_(grad_weight, alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Convolve ``input`` sampled at the kernel's displaced cells, each multiplied by its mask.

    The result is NaN where an offset is NaN.

    Args:
        input: [B, C_in, H, W].
        weight: [C_out, C_in / group, kernel_h, kernel_w].
        bias: [C_out], or an empty tensor.
        ones: Buffer of the compiled operator; not used.
        offset: [B, 2 * deformable_group * kernel_h * kernel_w, H_out, W_out]. The numbers of a
            larger map are read in memory order, as in the compiled operator; mmdet's DyHead was
            trained that way.
        mask: [B, deformable_group * kernel_h * kernel_w, H_out, W_out]; likewise.
        output: [B, C_out, H_out, W_out], written.
        columns: Buffer of the compiled operator; not used.
        kernel_h: Height of the kernel; not used, since it follows from ``weight``.
        kernel_w: Width of the kernel; not used.
        stride_h: Vertical stride.
        stride_w: Horizontal stride.
        pad_h: Zeros at the top and bottom.
        pad_w: Zeros at the left and right.
        dilation_h: Distance between the kernel's rows.
        dilation_w: Distance between the kernel's columns.
        group: Number of groups of the convolution; not used, since torchvision infers it from
            shapes.
        deformable_group: Number of channel groups with their own offsets and masks; likewise.
        with_bias: Whether to add ``bias``.
    """
    offset, mask = (_as_read(each, output.shape[2:]) for each in (offset, mask))
    input, offset, weight, mask = map(at_least_fp32, (input, offset, weight, mask))
    convolved = torchvision.ops.deform_conv2d(
        input,
        _without_nan(offset),
        weight,
        at_least_fp32(bias) if with_bias else None,
        stride=(stride_h, stride_w),
        padding=(pad_h, pad_w),
        dilation=(dilation_h, dilation_w),
        mask=mask,
    )
    output.copy_(convolved.masked_fill(_has_nan(offset), torch.nan))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Add the gradients to ``grad_input``, ``grad_weight``, ``grad_offset``, etc.

    The other arguments are as in :func:`modulated_deform_conv_forward`.
    """
    settings = (
        stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group,
    )  # fmt: skip
    offset, mask, grad_offset, grad_mask = (
        _as_read(each, grad_output.shape[2:]) for each in (offset, mask, grad_offset, grad_mask)
    )
    grads = _backward(grad_output, input, weight, offset, mask, settings)
    targets = (grad_input, grad_weight, grad_offset, grad_mask)
    for target, grad in zip(targets, grads[:4], strict=True):
        target.add_(grad)
    if with_bias:
        grad_bias.add_(grads[4])


def _as_read(tensor: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the first numbers of each image as a view [B, C, *size]."""
    if tensor.shape[2:] == size:
        return tensor
    channels = tensor.size(1)
    return tensor.flatten(1)[:, : channels * size[0] * size[1]].unflatten(1, (channels, *size))


def _without_nan(offset: Tensor) -> Tensor:
    """Return the offsets with 0 for NaN.

    At a NaN, torchvision would read and write memory that is not the feature map's.
    """
    return offset.masked_fill(offset.isnan(), 0)


def _has_nan(offset: Tensor) -> Tensor:
    """Return whether one of a position's offsets is NaN, [B, 1, H_out, W_out]."""
    return offset.isnan().any(dim=1, keepdim=True)


def _backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    settings: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of input, weight, offset, mask and bias."""
    grad_output, input, weight, offset = map(at_least_fp32, (grad_output, input, weight, offset))
    offset = _without_nan(offset)
    grad_input, grad_weight, grad_offset, *others = torch.ops.torchvision._deform_conv2d_backward(
        grad_output,
        input,
        weight,
        offset,
        offset.new_zeros(len(offset), 1) if mask is None else at_least_fp32(mask),
        weight.new_zeros(len(weight)),
        *settings,
        mask is not None,
    )
    _clear_outside(grad_offset, offset, weight.shape[2:], settings)
    return grad_input, grad_weight, grad_offset, *others


def _clear_outside(
    grad_offset: Tensor, offset: Tensor, kernel_size: tuple[int, int], settings: tuple[int, ...]
) -> None:
    """Zero the gradients of offsets that lead just outside the image, as mmcv does.

    The convolution has a kink there, and torchvision takes the slope on the image's side. This
    matters at the start of training, when offsets are 0 and the border's kernel cells lie exactly
    there.
    """
    outside = torch.zeros((), dtype=torch.bool, device=offset.device)
    # [B, groups, kH, kW, 2, H, W]
    offset = offset.unflatten(1, (-1, *kernel_size, 2))
    for axis in (0, 1):
        stride, padding, dilation = settings[axis : axis + 6 : 2]
        cells = torch.arange(kernel_size[axis], device=offset.device) * dilation
        places = torch.arange(offset.size(axis - 2), device=offset.device) * stride - padding
        start = cells.view(-1, *(1,) * (3 - axis)) + places.view(-1, *(1,) * (1 - axis))
        outside = outside | (offset[..., axis, :, :] + start <= -1)
    grad_offset.unflatten(1, (-1, *kernel_size, 2)).masked_fill_(outside.unsqueeze(-3), 0)
