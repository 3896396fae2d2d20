"""RoIAlign with the largest sample of each bin, which torchvision lacks."""

from math import ceil

import torch
from torch import Tensor

from .bilinear import corners

_LEAST = -10000.0  # mmcv's kernel starts its search here; a bin without samples keeps it


def roi_max_align_forward(
    features: Tensor,
    rois: Tensor,
    size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest sample of each bin and its location.

    Args:
        features: [B, C, H, W].
        rois: [N, 5], image index and corners x1, y1, x2, y2.
        size: Number of bins per column and per row.
        spatial_scale: Feature cells per unit of ``rois``.
        sampling_ratio: Samples per bin and axis; 0 for about one per feature cell.
        aligned: Whether cell centers lie at half-integer coordinates.

    Returns:
        Three tensors [N, C, *size]: the largest samples, their rows and their columns, in feature
        cells. A bin without samples has -10000 at row and column -1.
    """
    shape = (len(rois), features.size(1), *size)
    pooled = features.new_full(shape, _LEAST)
    rows, columns = features.new_full(shape, -1), features.new_full(shape, -1)
    for index, roi in enumerate(rois):
        image = features[int(roi[0])]
        left, top, right, bottom = roi[1:] * spatial_scale - (0.5 if aligned else 0.0)
        y = _sample_coordinates(top, bottom, size[0], sampling_ratio, aligned)
        x = _sample_coordinates(left, right, size[1], sampling_ratio, aligned)
        if not y.numel() or not x.numel():
            continue
        cells, weights = corners(y.reshape(-1, 1), x.reshape(1, -1), image.shape[-2:])
        samples = sum(
            weight * image.flatten(1)[:, cell] for cell, weight in zip(cells, weights, strict=True)
        )
        # [C, bins_y, samples_y, bins_x, samples_x] -> [C, bins_y, bins_x, samples]
        samples = samples.unflatten(-1, x.shape).unflatten(1, y.shape)
        samples = samples.transpose(2, 3).flatten(3)
        pooled[index], best = samples.max(dim=-1)
        bin_y = torch.arange(size[0], device=y.device)[:, None]
        bin_x = torch.arange(size[1], device=x.device)
        rows[index] = y[bin_y, best // x.size(1)]
        columns[index] = x[bin_x, best % x.size(1)]
    return pooled, rows, columns


def roi_max_align_backward(
    grad: Tensor, rois: Tensor, rows: Tensor, columns: Tensor, input_shape: tuple[int, ...]
) -> Tensor:
    """Return the gradient of :func:`roi_max_align_forward` with respect to the features.

    Args:
        grad: [N, C, bins_y, bins_x], gradient of the largest samples.
        rois: [N, 5], of which only the image index is used.
        rows: Rows of the largest samples, shaped like ``grad``.
        columns: Columns of the largest samples.
        input_shape: Shape of the features, [B, C, H, W].
    """
    batch, channels, height, width = input_shape
    cells, weights = corners(rows.to(grad.dtype), columns.to(grad.dtype), (height, width))
    channel = torch.arange(channels, device=grad.device)[:, None, None]
    plane = (rois[:, 0].long()[:, None, None, None] * channels + channel) * height * width
    grad_features = grad.new_zeros(batch * channels * height * width)
    for cell, weight in zip(cells, weights, strict=True):
        weight = torch.where(rows == -1, 0, weight)
        grad_features.index_add_(0, (plane + cell).flatten(), (grad * weight).flatten())
    return grad_features.view(batch, channels, height, width)


def _sample_coordinates(
    start: Tensor, end: Tensor, bins: int, sampling_ratio: int, aligned: bool
) -> Tensor:
    """Return the sampling coordinates [bins, samples] along one axis of a region."""
    length = end - start if aligned else (end - start).clamp(min=1)
    bin_length = length / bins
    samples = sampling_ratio if sampling_ratio > 0 else ceil(bin_length)
    bin_starts = start + torch.arange(bins, device=start.device) * bin_length
    steps = torch.arange(samples, device=start.device) + 0.5
    return bin_starts[:, None] + steps * bin_length / max(samples, 1)
