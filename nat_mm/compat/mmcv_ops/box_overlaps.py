"""Overlap of boxes, upright or rotated."""

import torch
from torch import Tensor

from .precision import at_least_fp32

_IOU = 0
_PAIRS_AT_A_TIME = 2**16  # about 100 MB
_LEAST_AREA = 1e-14  # mmcv's: a smaller box overlaps nothing


def bbox_overlaps(
    bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int
) -> None:
    """Write the overlaps of upright boxes into ``ious``.

    Args:
        bboxes1: [N, 4], corners x1, y1, x2, y2.
        bboxes2: [M, 4].
        ious: [N, M], or [N] if ``aligned``; written.
        mode: What the common area is divided by: 0 for the union's area, 1 for the first box's.
        aligned: Whether to compare each box with the one of the same index instead of all.
        offset: 1 if the last pixel belongs to the box (width x2 - x1 + 1), otherwise 0.
    """
    first, second = at_least_fp32(bboxes1), at_least_fp32(bboxes2)
    area1, area2 = ((each[:, 2:] - each[:, :2] + offset).prod(dim=1) for each in (first, second))
    if not aligned:
        first, area1 = first[:, None], area1[:, None]
    top_left = torch.maximum(first[..., :2], second[:, :2])
    bottom_right = torch.minimum(first[..., 2:], second[:, 2:])
    common = (bottom_right - top_left + offset).clamp(min=0).prod(dim=-1)
    ious.copy_(common / (area1 + area2 - common if mode == _IOU else area1))


def box_iou_rotated(
    boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool
) -> None:
    """Write the overlaps of rotated boxes into ``ious``.

    Args:
        boxes1: [N, 5], center x and y, width, height and angle in radians, from x towards y.
        boxes2: [M, 5].
        ious: [N * M], or [N] if ``aligned``; written.
        mode_flag: What the common area is divided by: 0 for the union's area, 1 for the first
            box's.
        aligned: Whether to compare each box with the one of the same index instead of all.
    """
    if aligned:
        ious.copy_(overlap_of_pairs(boxes1, boxes2, mode_flag))
        return
    ious.zero_()
    first, second = find_near_pairs(boxes1, boxes2)
    overlaps = overlap_of_pairs(boxes1[first], boxes2[second], mode_flag)
    ious[first * len(boxes2) + second] = overlaps.to(ious.dtype)


def find_near_pairs(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices of the pairs of rotated boxes whose circumscribed circles meet."""
    radii1, radii2 = (
        torch.linalg.vector_norm(each[:, 2:4], dim=1) / 2 for each in (boxes1, boxes2)
    )
    distances = torch.linalg.vector_norm(boxes1[:, None, :2] - boxes2[:, :2], dim=-1)
    first, second = (distances <= (radii1[:, None] + radii2) * 1.001).nonzero(as_tuple=True)
    return first, second


def overlap_of_pairs(boxes1: Tensor, boxes2: Tensor, mode_flag: int = _IOU) -> Tensor:
    """Return the overlap, [N], of rotated boxes [N, 5] with those of the same index.

    It is computed in fp64, so that rounding cannot lose a corner on the other box's border.
    """
    chunks = zip(boxes1.split(_PAIRS_AT_A_TIME), boxes2.split(_PAIRS_AT_A_TIME), strict=True)
    overlaps = [_overlap(first.double(), second.double(), mode_flag) for first, second in chunks]
    return torch.cat(overlaps).to(boxes1.dtype) if overlaps else boxes1.new_zeros(0)


def _overlap(first: Tensor, second: Tensor, mode_flag: int) -> Tensor:
    center = (first[:, :2] + second[:, :2]) / 2
    area1, area2 = first[:, 2] * first[:, 3], second[:, 2] * second[:, 3]
    points, exist = _corners_of_intersection(_corners(first, center), _corners(second, center))
    common = _area(points, exist)
    union = area1 + area2 - common
    overlap = common / (union if mode_flag == _IOU else area1)
    return overlap.where((area1 >= _LEAST_AREA) & (area2 >= _LEAST_AREA), 0)


def _corners(boxes: Tensor, origin: Tensor) -> Tensor:
    """Return the corners of rotated boxes in order, [N, 4, 2]."""
    signs = boxes.new_tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
    x, y = (signs * boxes[:, None, 2:4]).unbind(-1)
    cosine, sine = boxes[:, 4:].cos(), boxes[:, 4:].sin()
    turned = torch.stack([x * cosine - y * sine, x * sine + y * cosine], dim=-1)
    return turned + (boxes[:, :2] - origin)[:, None]


def _corners_of_intersection(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return 24 points; those that exist are the corners of the intersection.

    These are the crossings of edges, and the corners of each box inside the other.

    Args:
        first: [N, 4, 2], corners of rectangles in order.
        second: [N, 4, 2].

    Returns:
        Points [N, 24, 2], and which of them exist, [N, 24].
    """
    edges1 = (first.roll(-1, dims=1) - first)[:, :, None]
    edges2 = (second.roll(-1, dims=1) - second)[:, None]
    between = second[:, None] - first[:, :, None]
    determinant = _cross(edges1, edges2)
    # Tests the sine of their angle: for collinear edges, rounding could produce any crossing.
    lengths = [torch.linalg.vector_norm(each, dim=-1) for each in (edges1, edges2)]
    crosses = determinant.abs() > 1e-9 * lengths[0] * lengths[1]
    determinant = determinant.where(crosses, 1)
    along1, along2 = _cross(between, edges2) / determinant, _cross(between, edges1) / determinant
    crosses &= (along1 >= 0) & (along1 <= 1) & (along2 >= 0) & (along2 <= 1)
    crossings = first[:, :, None] + along1[..., None] * edges1
    points = torch.cat([crossings.flatten(1, 2), first, second], dim=1)
    exist = [crosses.flatten(1), _lie_inside(first, second), _lie_inside(second, first)]
    return points, torch.cat(exist, dim=1)


def _lie_inside(points: Tensor, rectangles: Tensor) -> Tensor:
    """Return which of the points [N, 4, 2] lie in their rectangle or very close to its border."""
    from_corner = points - rectangles[:, :1]
    inside = torch.ones_like(from_corner[..., 0], dtype=torch.bool)
    for corner in (1, 3):
        side = rectangles[:, corner, None] - rectangles[:, :1]
        along, square = (from_corner * side).sum(-1), side.square().sum(-1)
        inside &= (along >= -1e-9 * square) & (along <= (1 + 1e-9) * square)
    return inside


def _area(points: Tensor, exist: Tensor) -> Tensor:
    """Return the area of the convex polygons formed by the points that exist."""
    count = exist.sum(dim=1)
    center = (points * exist[..., None]).sum(dim=1) / count.clamp(min=1)[:, None]
    points = points - center[:, None]
    # Points that do not exist become copies of one that does, which adds no area.
    one = exist.int().argmax(dim=1)[:, None, None].expand(-1, 1, 2)
    points = points.where(exist[..., None], points.gather(1, one))
    order = torch.atan2(points[..., 1], points[..., 0]).argsort(dim=1)
    points = points.gather(1, order[..., None].expand_as(points))
    area = _cross(points, points.roll(-1, dims=1)).sum(dim=1) / 2
    return area.where(count > 2, 0)


def _cross(first: Tensor, second: Tensor) -> Tensor:
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
