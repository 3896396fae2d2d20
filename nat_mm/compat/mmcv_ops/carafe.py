"""CARAFE (arXiv 1905.02188), upsampling with kernels predicted from the features."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .precision import at_least_fp32


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the weighted sum of each output cell's source and its neighbors into ``output``.

    Args:
        features: [B, C, H, W].
        masks: [B, group_size * kernel_size^2, scale_factor * H, scale_factor * W], the weights.
        rfeatures: [B, C, H, W], written: the features, which mmcv passes to the backward pass.
        routput: Buffer of the compiled operator; not used.
        rmasks: Likewise.
        output: [B, C, scale_factor * H, scale_factor * W], written.
        kernel_size: Number of cells to sum along each axis; odd.
        group_size: Number of channel groups with their own weights.
        scale_factor: Upsampling factor along each axis.
    """
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Add the gradients to ``bottom_grad`` and ``mask_grad``.

    ``top_grad`` is shaped like the output; the arguments starting with r, except ``rfeatures``, are
    unused buffers of the compiled operator; the others are as in :func:`carafe_forward`.
    """
    carafe_naive_backward(
        top_grad, rfeatures, masks, bottom_grad, mask_grad, kernel_size, group_size, scale_factor
    )


def carafe_naive_forward(
    features: Tensor,
    masks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Do the same as :func:`carafe_forward`, with the same arguments."""
    weights = _split(at_least_fp32(masks), group_size, kernel_size**2, scale_factor)
    result = 0
    for cell, neighbors in enumerate(_neighbors(at_least_fp32(features), kernel_size, group_size)):
        result = result + weights[:, :, cell, None] * neighbors[..., None, :, None]
    output.copy_(result.reshape(output.shape))


def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Do the same as :func:`carafe_backward`, with the same arguments."""
    weights = _split(at_least_fp32(masks), group_size, kernel_size**2, scale_factor)
    grad = _split(at_least_fp32(top_grad), group_size, features.size(1) // group_size, scale_factor)
    grad_features = torch.zeros_like(_pad(at_least_fp32(features), kernel_size))
    grad_weights = torch.zeros_like(weights)
    windows = _neighbors(grad_features, kernel_size, group_size, is_padded=True)
    neighbors = _neighbors(at_least_fp32(features), kernel_size, group_size)
    for cell, (window, neighbor) in enumerate(zip(windows, neighbors, strict=True)):
        window += (weights[:, :, cell, None] * grad).sum(dim=(4, 6))
        grad_weights[:, :, cell] = (grad * neighbor[..., None, :, None]).sum(dim=2)
    margin = kernel_size // 2
    height, width = features.shape[2:]
    bottom_grad.add_(grad_features[..., margin : margin + height, margin : margin + width])
    mask_grad.add_(grad_weights.reshape(mask_grad.shape))


def _split(tensor: Tensor, groups: int, channels: int, scale: int) -> Tensor:
    """View [B, C, H * scale, W * scale] as [B, groups, channels, H, scale, W, scale]."""
    batch, _, height, width = tensor.shape
    return tensor.reshape(batch, groups, channels, height // scale, scale, width // scale, scale)


def _pad(features: Tensor, kernel_size: int) -> Tensor:
    return F.pad(features, (kernel_size // 2,) * 4)


def _neighbors(
    features: Tensor, kernel_size: int, groups: int, is_padded: bool = False
) -> Iterator[Tensor]:
    """Yield, for each cell of the kernel, a view [B, groups, C / groups, H, W]."""
    padded = features if is_padded else _pad(features, kernel_size)
    padded = padded.unflatten(1, (groups, -1))
    height, width = (size - kernel_size + 1 for size in padded.shape[-2:])
    for top in range(kernel_size):
        for left in range(kernel_size):
            yield padded[..., top : top + height, left : left + width]
