"""RoIAlign (arXiv 1703.06870), forward and backward, with average or maximum of a bin's samples."""

import torch
import torchvision
from torch import Tensor

from .precision import at_least_fp32
from .roi_max_align import roi_max_align_backward, roi_max_align_forward

_MAX, _AVERAGE = 0, 1


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Sample the features of each region on a regular grid of bins.

    A region with a NaN or infinite corner gets NaN.

    Args:
        input: [B, C, H, W].
        rois: [N, 5], image index and corners x1, y1, x2, y2.
        output: [N, C, aligned_height, aligned_width], written.
        argmax_y: Like ``output``, written if ``pool_mode`` is 0: row of the largest sample.
        argmax_x: Likewise: column of the largest sample.
        aligned_height: Bins per column.
        aligned_width: Bins per row.
        spatial_scale: Feature cells per unit of ``rois``.
        sampling_ratio: Samples per bin and axis; 0 for about one per feature cell.
        pool_mode: 0 for the largest sample of a bin, 1 for their average.
        aligned: Whether cell centers lie at half-integer coordinates.
    """
    features = at_least_fp32(input)
    rois, is_broken = _without_broken(rois.to(features.dtype))
    size = (aligned_height, aligned_width)
    if pool_mode == _AVERAGE:
        pooled = torchvision.ops.roi_align(
            features, rois, size, spatial_scale, sampling_ratio, aligned
        )
    else:
        pooled, rows, columns = roi_max_align_forward(
            features, rois, size, spatial_scale, sampling_ratio, aligned
        )
        argmax_y.copy_(rows)
        argmax_x.copy_(columns)
    output.copy_(pooled.masked_fill(is_broken[:, None, None, None], torch.nan))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient with respect to the features to ``grad_input`` ([B, C, H, W]).

    ``grad_output`` is [N, C, aligned_height, aligned_width]; the other arguments are as in
    :func:`roi_align_forward`.
    """
    grad = at_least_fp32(grad_output)
    rois, _ = _without_broken(rois.to(grad.dtype))
    if pool_mode == _AVERAGE:
        grad_features = torch.ops.torchvision._roi_align_backward(
            grad,
            rois,
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    else:
        grad_features = roi_max_align_backward(grad, rois, argmax_y, argmax_x, grad_input.shape)
    grad_input.add_(grad_features)


def _without_broken(rois: Tensor) -> tuple[Tensor, Tensor]:
    """Return regions [N, 5] with zeros where one is not finite, and which are not, [N].

    At a NaN, torchvision would read and write memory that is not the feature map's.
    """
    is_broken = ~rois.isfinite().all(dim=1)
    return rois.masked_fill(is_broken[:, None], 0), is_broken
