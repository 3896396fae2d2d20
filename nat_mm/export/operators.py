"""Operators whose result sizes depend on values, and their translations to ONNX.

PyTorch traces each as a single operator. The exporter thus need not guess any size, and the ONNX
model gets its own equivalent operator, such as NonMaxSuppression.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor


@torch.library.custom_op('nat_mm_export::highest', mutates_args=())
def highest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the highest scores, in descending order, and their indices.

    Args:
        scores: [n].
        count: Number of scores; if there are fewer, all are returned.

    Returns:
        Scores and indices, each [min(count, n)].
    """
    values, indices = scores.topk(min(count, len(scores)))
    return values, indices


@highest.register_fake
def _(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    length = torch.library.get_ctx().new_dynamic_size()
    return scores.new_empty(length), scores.new_empty(length, dtype=torch.int64)


@torch.library.custom_op('nat_mm_export::suppress', mutates_args=())
def suppress(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, count: int
) -> Tensor:
    """Non-maximum suppression.

    Args:
        boxes: [n, 4], corners x1, y1, x2, y2.
        scores: [n].
        iou_threshold: A box whose IoU with a higher-scoring box exceeds this is dropped.
        score_threshold: Boxes whose scores do not exceed this are dropped.
        count: Maximum number of boxes to keep.

    Returns:
        Indices of the kept boxes, highest score first.
    """
    (above,) = (scores > score_threshold).nonzero(as_tuple=True)
    kept = torchvision.ops.nms(boxes[above], scores[above], iou_threshold)
    return above[kept[:count]]


@suppress.register_fake
def _(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, count: int
) -> Tensor:
    return scores.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


@torch.library.custom_op('nat_mm_export::centers', mutates_args=())
def centers(length: Tensor) -> Tensor:
    """Returns the centers of the pixels along an axis.

    Args:
        length: Number of pixels, a zero-dimensional int64 tensor.

    Returns:
        0.5, 1.5, ..., float32, [length].
    """
    return torch.arange(int(length), dtype=torch.float32) + 0.5


@centers.register_fake
def _(length: Tensor) -> Tensor:
    return length.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.float32)


@torch.library.custom_op('nat_mm_export::crop', mutates_args=())
def crop(images: Tensor, size: Tensor) -> Tensor:
    """Crops images to their upper left part.

    Args:
        images: [N, C, H, W].
        size: Height and width of the result, int64, [2].

    Returns:
        [N, C, height, width].
    """
    height, width = size.tolist()
    return images[:, :, :height, :width].clone()


@torch.library.custom_op('nat_mm_export::resize', mutates_args=())
def resize(images: Tensor, size: Tensor, align_corners: bool) -> Tensor:
    """Resizes images by bilinear interpolation.

    Args:
        images: [N, C, H, W].
        size: Height and width of the result, int64, [2].
        align_corners: As in `torch.nn.functional.interpolate`.

    Returns:
        [N, C, height, width].
    """
    return F.interpolate(images, size.tolist(), mode='bilinear', align_corners=align_corners)


def _of_another_size(images: Tensor, *_: Any) -> Tensor:
    context = torch.library.get_ctx()
    return images.new_empty(
        *images.shape[:2], context.new_dynamic_size(), context.new_dynamic_size()
    )


crop.register_fake(_of_another_size)
resize.register_fake(_of_another_size)


def operator_translations() -> dict[Any, Callable[..., Any]]:
    """Returns the ONNX translations of these operators, for ``torch.onnx.export``."""
    from onnxscript import opset18 as op

    def _highest(scores: Any, count: int) -> Any:
        available = op.Shape(scores)
        return op.TopK(scores, op.Min(available, op.Constant(value_ints=[count])))

    def _suppress(
        boxes: Any, scores: Any, iou_threshold: float, score_threshold: float, count: int
    ) -> Any:
        kept = op.NonMaxSuppression(
            op.Unsqueeze(boxes, [0]),
            op.Unsqueeze(scores, [0, 1]),
            op.Constant(value_ints=[count]),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[score_threshold]),
        )
        # Each row is image, class and box.
        return op.Squeeze(op.Slice(kept, [2], [3], [1]), [1])

    def _centers(length: Any) -> Any:
        zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
        pixels = op.Cast(op.Range(zero, length, one), to=1)
        return op.Add(pixels, op.Constant(value_float=0.5))

    def _crop(images: Any, size: Any) -> Any:
        return op.Slice(images, [0, 0], size, [2, 3])

    def _resize(images: Any, size: Any, align_corners: bool) -> Any:
        kept = op.Shape(images, start=0, end=2)
        return op.Resize(
            images,
            None,
            None,
            op.Concat(kept, size, axis=0),
            mode='linear',
            coordinate_transformation_mode='align_corners' if align_corners else 'half_pixel',
        )

    names = torch.ops.nat_mm_export
    return {
        names.highest.default: _highest,
        names.suppress.default: _suppress,
        names.centers.default: _centers,
        names.crop.default: _crop,
        names.resize.default: _resize,
    }
