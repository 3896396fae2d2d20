"""Bilinear interpolation of features as in mmcv's RoI operators."""

from torch import Tensor


def corners(
    y: Tensor, x: Tensor, size: tuple[int, int]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the flat indices of the four cells around each point, and their bilinear weights.

    Points up to one cell outside the map take the border's values; beyond that, the weights are
    zero. For a NaN, they are NaN.
    """
    height, width = size
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y, x = y.clamp(0, height - 1), x.clamp(0, width - 1)
    top, left = y.nan_to_num().long(), x.nan_to_num().long()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down, across = y - top, x - left
    cells = (
        top * width + left,
        top * width + right,
        bottom * width + left,
        bottom * width + right,
    )
    weights = (
        (1 - down) * (1 - across),
        (1 - down) * across,
        down * (1 - across),
        down * across,
    )
    return cells, tuple(weight * inside for weight in weights)
