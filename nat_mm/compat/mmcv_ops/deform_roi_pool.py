"""RoIAlign whose bins are displaced by learned offsets (arXiv 1703.06211), forward and backward."""

from math import ceil

import torch
from torch import Tensor

from .bilinear import corners
from .precision import at_least_fp32


def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Average the samples in each displaced bin of each region.

    Args:
        input: [B, C, H, W].
        rois: [N, 5], image index and corners x1, y1, x2, y2.
        offset: [N, 2, pooled_height, pooled_width], displacements in x and y, or an empty tensor.
        output: [N, C, pooled_height, pooled_width], written.
        pooled_height: Bins per column.
        pooled_width: Bins per row.
        spatial_scale: Feature cells per unit of ``rois``.
        sampling_ratio: Samples per bin and axis; 0 for about one per feature cell.
        gamma: Displacement for an offset of 1, as a fraction of the region's size.
    """
    settings = (pooled_height, pooled_width, spatial_scale, sampling_ratio, gamma)
    output.copy_(_pool(*map(at_least_fp32, (input, rois, offset)), *settings))


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Add the gradients to ``grad_input`` and, with offsets, to ``grad_offset``.

    ``grad_output`` is [N, C, pooled_height, pooled_width]; the other arguments are as in
    :func:`deform_roi_pool_forward`.
    """
    if not len(rois):
        return
    settings = (pooled_height, pooled_width, spatial_scale, sampling_ratio, gamma)
    has_offset = offset.numel() > 0
    features = at_least_fp32(input).detach().requires_grad_()
    shifts = at_least_fp32(offset).detach().requires_grad_(has_offset)
    with torch.enable_grad():
        pooled = _pool(features, at_least_fp32(rois), shifts, *settings)
    inputs = [features, shifts] if has_offset else [features]
    grads = torch.autograd.grad(pooled, inputs, at_least_fp32(grad_output))
    grad_input.add_(grads[0])
    if has_offset:
        grad_offset.add_(grads[1])


def _pool(
    features: Tensor,
    rois: Tensor,
    offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> Tensor:
    rois = rois.to(features.dtype)
    starts = rois[:, 1:3] * spatial_scale - 0.5
    sizes = rois[:, 3:] * spatial_scale - 0.5 - starts
    pooled = []
    for index, (image, start, size) in enumerate(
        zip(rois[:, 0].long(), starts, sizes, strict=True)
    ):
        shift = (
            gamma * size * offset[index].permute(1, 2, 0) if offset.numel() else size.new_zeros(2)
        )
        x = _samples(size[0], pooled_width, sampling_ratio)
        y = _samples(size[1], pooled_height, sampling_ratio)
        # [bins_y, bins_x, samples_y, samples_x]
        y = start[1] + shift[..., 1, None, None] + y[:, None, :, None]
        x = start[0] + shift[..., 0, None, None] + x[None, :, None, :]
        cells, weights = corners(y, x, features.shape[2:])
        flat = features[image].flatten(1)
        samples = sum(flat[:, cell] * part for cell, part in zip(cells, weights, strict=True))
        count = max(samples.size(-1) * samples.size(-2), 1)
        pooled.append(samples.sum(dim=(-2, -1)) / count)
    shape = (0, features.size(1), pooled_height, pooled_width)
    return torch.stack(pooled) if pooled else features.new_zeros(shape)


def _samples(length: Tensor, bins: int, sampling_ratio: int) -> Tensor:
    """Return the distances of the samples from the start of a region, [bins, samples]."""
    bin_length = length / bins
    count = sampling_ratio if sampling_ratio > 0 else max(ceil(bin_length), 0)
    numbers = torch.arange(max(bins, count), device=length.device, dtype=length.dtype)
    steps = (numbers[:count] + 0.5) / max(count, 1)
    return (numbers[:bins, None] + steps) * bin_length
