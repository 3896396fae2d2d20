"""Exported detectors, which compute boxes, scores, labels and masks of objects."""

from typing import Any

from torch import Tensor, nn

from nat_mm.errors import UserError
from nat_mm.export.boxes import candidates, check_head, check_suppression, select
from nat_mm.export.operators import centers
from nat_mm.export.program import for_export
from nat_mm.export.regions import Regions, paste

SERVED = (
    'supported are RetinaNet, Faster R-CNN, Mask R-CNN and Cascade (Mask) R-CNN with the heads of '
    'mmdet'
)


class ExportedDetector(nn.Module):
    """A detector without OpenMMLab's data samples, for one image at a time.

    Args:
        detector: A detector of mmdet.

    Raises:
        UserError: If it is not one of those that can be exported.
    """

    def __init__(self, detector: Any) -> None:
        super().__init__()
        from mmdet.models import (
            CascadeRoIHead,
            RetinaHead,
            RPNHead,
            SingleStageDetector,
            StandardRoIHead,
            TwoStageDetector,
        )

        self.regions: Regions | None = None
        if isinstance(detector, TwoStageDetector):
            _check_type(detector.rpn_head, RPNHead)
            check_suppression(detector.test_cfg.rpn, 'model.test_cfg.rpn')
        elif isinstance(detector, SingleStageDetector):
            _check_type(getattr(detector, 'bbox_head', None), RetinaHead)
            check_suppression(detector.test_cfg, 'model.test_cfg')
        else:
            raise UserError(f'{type(detector).__name__} cannot be exported as a whole: {SERVED}')
        self.detector = for_export(detector)
        self.dense_head = getattr(self.detector, 'rpn_head', None) or self.detector.bbox_head
        check_head(self.dense_head)
        if isinstance(detector, TwoStageDetector):
            _check_type(detector.roi_head, StandardRoIHead, CascadeRoIHead)
            self.regions = Regions(self.detector.roi_head)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        names = ('boxes', 'scores', 'labels')
        return (*names, 'masks') if self.regions and self.regions.has_masks else names

    def forward(self, image: Tensor, content: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """Detects the objects in an image.

        Args:
            image: [1, 3, H, W], float32, normalized and padded.
            content: Height and width before the padding, int64.
            size: Height and width of the image to which boxes and masks refer, int64.

        Returns:
            Boxes, [n, 4], float32, corners x1, y1, x2, y2; their scores, [n], float32, and labels,
            [n], int64; and, if the detector has masks, the masks, [n, height, width], bool. The
            highest score comes first.
        """
        detector: Any = self.detector
        features = detector.extract_feat(image)
        head = self.dense_head
        settings = head.test_cfg
        found = candidates(head, *head(features), content, settings.get('nms_pre', -1))
        scale = (size / content).flip(0).repeat(2)
        boxes, scores, labels, levels = found
        if self.regions is None:
            kept = select(
                *(boxes, scores, labels, content, settings),
                score_threshold=max(settings.get('score_thr', 0), 0),
            )
            return boxes[kept] * scale, scores[kept], labels[kept]
        kept = select(boxes, scores, levels, content, settings, score_threshold=0)
        boxes, scores, labels = self.regions.detect(features, boxes[kept], content)
        if not self.regions.has_masks:
            return boxes * scale, scores, labels
        masks = self.regions.masks(features, boxes, labels)
        boxes = boxes * scale
        pasted = paste(masks, boxes, centers(size[0]), centers(size[1]))
        return boxes, scores, labels, pasted >= self.regions.mask_threshold


def _check_type(head: Any, *kinds: type) -> None:
    if type(head) not in kinds:
        raise UserError(
            f'a detector with {type(head).__name__} cannot be exported as a whole: {SERVED}'
        )
