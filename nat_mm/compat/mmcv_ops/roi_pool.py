"""RoIPool (arXiv 1504.08083), forward and backward.

torchvision's cannot be used because it rounds the corners of regions, unlike mmcv's.
"""

import torch
from torch import Tensor

from .precision import at_least_fp32


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Take the largest feature in each bin of each region.

    Args:
        input: [B, C, H, W].
        rois: [N, 5], image index and corners x1, y1, x2, y2; the last pixel belongs to the region.
        output: [N, C, pooled_height, pooled_width], written. A bin without cells gets 0, and each
            bin of a region with NaN or infinity gets NaN.
        argmax: Like ``output``, int32, written: the cell of the largest feature, or -1.
        pooled_height: Bins per column.
        pooled_width: Bins per row.
        spatial_scale: Feature cells per unit of ``rois``.
    """
    features = at_least_fp32(input)
    height, width = features.shape[2:]
    rois = rois.to(features.dtype)
    output.zero_()
    argmax.fill_(-1)
    starts, ends = rois[:, 1:3] * spatial_scale, (rois[:, 3:5] + 1) * spatial_scale
    for index, (image, start, end) in enumerate(zip(rois[:, 0].long(), starts, ends, strict=True)):
        if not (start.isfinite() & end.isfinite()).all():
            output[index] = torch.nan
            continue
        if not (end > start).all():
            continue
        rows, row_exists = _bins(start[1], end[1], pooled_height, height)
        columns, column_exists = _bins(start[0], end[0], pooled_width, width)
        # [C, bins_y, rows, bins_x, columns] -> [C, bins_y, bins_x, cells]
        cells = features[image][:, rows[..., None, None], columns]
        exists = (row_exists[..., None, None] & column_exists).transpose(1, 2).flatten(2)
        cells = cells.transpose(2, 3).flatten(3).where(exists, -torch.inf)
        positions = (rows[..., None, None] * width + columns).transpose(1, 2).flatten(2)
        best = cells.argmax(dim=-1, keepdim=True)
        is_empty = ~exists.any(dim=-1)
        output[index] = cells.gather(-1, best).squeeze(-1).masked_fill(is_empty, 0)
        positions = positions.expand(len(cells), -1, -1, -1).gather(-1, best).squeeze(-1)
        argmax[index] = positions.masked_fill(is_empty, -1)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add the gradient with respect to the features to ``grad_input`` ([B, C, H, W]).

    ``grad_output`` is [N, C, pooled_height, pooled_width]; the other arguments are as in
    :func:`roi_pool_forward`.
    """
    batch, channels, height, width = grad_input.shape
    channel = torch.arange(channels, device=rois.device)[:, None, None]
    plane = (rois[:, 0].long()[:, None, None, None] * channels + channel) * height * width
    found = argmax >= 0
    grad = at_least_fp32(grad_output)
    grad_features = grad.new_zeros(batch * channels * height * width)
    grad_features.index_add_(0, (plane + argmax)[found], grad[found])
    grad_input.add_(grad_features.view_as(grad_input))


def _bins(start: Tensor, end: Tensor, bins: int, size: int) -> tuple[Tensor, Tensor]:
    """Return the cells of each bin along one axis, [bins, cells], and which of them exist."""
    length = (end - start) / bins
    numbers = torch.arange(bins, device=start.device, dtype=start.dtype)
    first = (numbers * length + start).floor().clamp(0, size).long()
    last = ((numbers + 1) * length + start).ceil().clamp(0, size).long()
    longest = max(int((last - first).max()), 1)
    cells = first[:, None] + torch.arange(longest, device=start.device)
    return cells.clamp(max=size - 1), cells < last[:, None]
