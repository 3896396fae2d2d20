"""Second stage of an exported detector: classifies and refines proposed regions."""

from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from nat_mm.errors import UserError
from nat_mm.export.boxes import check_head, check_suppression, decode_boxes, select


class Regions(nn.Module):
    """Heads that process regions: one of each kind, or one for each stage of a cascade.

    Args:
        roi_head: mmdet's ``StandardRoIHead`` or ``CascadeRoIHead``.
    """

    def __init__(self, roi_head: Any) -> None:
        super().__init__()
        if roi_head.with_shared_head:
            raise UserError(f'{type(roi_head).__name__} with a shared_head cannot be exported')
        self.settings = roi_head.test_cfg
        self.has_masks = roi_head.with_mask
        self.mask_threshold = self.settings.get('mask_thr_binary', 0.5)
        self.heads = _as_list(roi_head.bbox_head)
        self.extractors = _as_list(roi_head.bbox_roi_extractor)
        self.mask_heads = _as_list(roi_head.mask_head if self.has_masks else [])
        self.mask_extractors = _as_list(roi_head.mask_roi_extractor if self.has_masks else [])
        check_suppression(self.settings, 'model.test_cfg.rcnn')
        for head in self.heads:
            check_head(head)
        for mask_head in self.mask_heads:
            if type(mask_head).__name__ != 'FCNMaskHead':
                raise UserError(
                    f'{type(mask_head).__name__} cannot be exported: masks need FCNMaskHead'
                )
        for extractor in (*self.extractors, *self.mask_extractors):
            _check_extractor(extractor)

    def detect(
        self, features: Sequence[Tensor], boxes: Tensor, content: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Detects the objects in proposed regions.

        Args:
            features: Feature maps of the neck, [1, C, H, W].
            boxes: The regions, [n, 4], corners x1, y1, x2, y2 in the image.
            content: Height and width of the image.

        Returns:
            Boxes [m, 4], and their scores and labels, [m] each.
        """
        head, logits, deltas = self._look(0, features, boxes)
        total = logits
        for stage in range(1, len(self.heads)):
            boxes = self._refined(head, boxes, logits, deltas, content)
            head, logits, deltas = self._look(stage, features, boxes)
            total = total + logits
        scores = (total / len(self.heads)).softmax(dim=1)[:, :-1]
        classes = scores.shape[1]
        if head.reg_class_agnostic:
            boxes = decode_boxes(head.bbox_coder, boxes, deltas, content)
            boxes = boxes[:, None].expand(-1, classes, 4).reshape(-1, 4)
        else:
            boxes = boxes[:, None].expand(-1, classes, 4).reshape(-1, 4)
            boxes = decode_boxes(head.bbox_coder, boxes, deltas.reshape(-1, 4), content)
        labels = torch.arange(classes, device=boxes.device).expand_as(scores).reshape(-1)
        scores = scores.reshape(-1)
        kept = select(
            *(boxes, scores, labels, content, self.settings),
            score_threshold=max(self.settings.score_thr, 0),
        )
        return boxes[kept], scores[kept], labels[kept]

    def masks(self, features: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """Predicts the masks of objects.

        Args:
            features: Feature maps of the neck, [1, C, H, W].
            boxes: Boxes of the objects, [n, 4], corners x1, y1, x2, y2 in the image.
            labels: Classes of the objects, [n].

        Returns:
            Probabilities inside each box, [n, h, w], averaged over the mask heads.
        """
        stages = zip(self.mask_heads, self.mask_extractors, strict=True)
        found = [head(pool(extractor, features, boxes)).sigmoid() for head, extractor in stages]
        masks = sum(found[1:], found[0]) / len(found)
        if self.mask_heads[0].class_agnostic:
            return masks[:, 0]
        index = labels[:, None, None, None].expand(-1, 1, *masks.shape[2:])
        return masks.gather(1, index)[:, 0]

    def _look(
        self, stage: int, features: Sequence[Tensor], boxes: Tensor
    ) -> tuple[Any, Tensor, Tensor]:
        """Returns the head of a stage and its predictions: class logits and deltas."""
        head = self.heads[stage]
        return head, *head(pool(self.extractors[stage], features, boxes))

    def _refined(
        self, head: Any, boxes: Tensor, logits: Tensor, deltas: Tensor, content: Tensor
    ) -> Tensor:
        """Returns the regions for the next stage."""
        if not head.reg_class_agnostic:
            label = logits[:, :-1].argmax(dim=1)
            index = label[:, None, None].expand(-1, 1, 4)
            deltas = deltas.reshape(-1, head.num_classes, 4).gather(1, index)[:, 0]
        return decode_boxes(head.bbox_coder, boxes, deltas, content)


def pool(extractor: Any, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Extracts the features of regions, each from the level that matches its size.

    Args:
        extractor: mmdet's ``SingleRoIExtractor``.
        features: Feature maps of the neck, [1, C, H, W].
        boxes: The regions, [n, 4], corners x1, y1, x2, y2 in the image.

    Returns:
        [n, C, h, w].
    """
    if torch.compiler.is_exporting():
        # Normalization layers check this; it makes no difference in ONNX.
        torch._check(boxes.shape[0] != 0)
    regions = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], dim=1)
    levels = extractor.map_roi_levels(regions, len(extractor.roi_layers))
    pooled, indices = [], []
    for level, layer in enumerate(extractor.roi_layers):
        (index,) = (levels == level).nonzero(as_tuple=True)
        aligned = torchvision.ops.roi_align(
            features[level],
            regions[index],
            layer.output_size,
            layer.spatial_scale,
            layer.sampling_ratio,
            layer.aligned,
        )
        pooled.append(aligned)
        indices.append(index)
    order = torch.cat(indices)
    number = torch.arange(order.shape[0], device=order.device)
    place = torch.zeros_like(levels).scatter(0, order, number)
    return torch.cat(pooled)[place]


def paste(masks: Tensor, boxes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pastes masks into their boxes with bilinear interpolation, and 0 outside.

    Each axis is interpolated separately, by a matrix product, which avoids a sampling grid twice as
    large as the masks in memory.

    Args:
        masks: [n, h, w], relative to the boxes.
        boxes: [n, 4], corners x1, y1, x2, y2.
        rows: Centers of the pixels, [H].
        columns: Centers of the pixels, [W].

    Returns:
        [n, H, W].
    """
    left, top, right, bottom = boxes.unbind(dim=1)
    vertical = _weights(rows, top, bottom, masks.shape[1])
    horizontal = _weights(columns, left, right, masks.shape[2])
    return vertical @ masks @ horizontal.transpose(1, 2)


def _weights(pixels: Tensor, low: Tensor, high: Tensor, cells: int) -> Tensor:
    """Returns the weight of each mask cell in each pixel along an axis, [n, pixels, cells]."""
    place = (pixels - low[:, None]) / (high - low)[:, None] * cells - 0.5
    distance = place[:, :, None] - torch.arange(cells, device=pixels.device)
    return (1 - distance.abs()).clamp(min=0)


def _check_extractor(extractor: Any) -> None:
    """Checks that an extractor pools features in the way that ONNX does."""
    if type(extractor).__name__ != 'SingleRoIExtractor':
        raise UserError(
            f'{type(extractor).__name__} cannot be exported: regions need SingleRoIExtractor'
        )
    for layer in extractor.roi_layers:
        if type(layer).__name__ != 'RoIAlign' or layer.pool_mode != 'avg':
            raise UserError(
                f'{type(layer).__name__} cannot be exported: regions need RoIAlign with '
                'pool_mode="avg"'
            )


def _as_list(modules: Any) -> nn.ModuleList:
    return nn.ModuleList(modules if isinstance(modules, list | nn.ModuleList) else [modules])
