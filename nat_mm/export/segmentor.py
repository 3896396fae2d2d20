"""Exported segmentors, which compute a label and a score for each pixel."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from nat_mm.errors import UserError
from nat_mm.export.operators import crop, resize
from nat_mm.export.program import for_export

OUTPUTS = ('labels', 'scores')


class ExportedSegmentor(nn.Module):
    """A segmentor without OpenMMLab's data samples.

    Args:
        segmentor: An ``EncoderDecoder`` of mmseg; see `check_segmentor`.
    """

    def __init__(self, segmentor: Any) -> None:
        super().__init__()
        check_segmentor(segmentor)
        self.segmentor = for_export(segmentor)
        self.segmentor.auxiliary_head = None

    def forward(self, image: Tensor, content: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
        """Segments images.

        Args:
            image: [N, 3, H, W], float32, normalized and padded.
            content: Height and width before the padding, int64.
            size: Height and width of the results, int64.

        Returns:
            The labels, [N, height, width], int64, and their probabilities, float32.
        """
        head: Any = self.segmentor.decode_head
        logits = head(self.segmentor.extract_feat(image))
        logits = F.interpolate(
            logits, image.shape[2:], mode='bilinear', align_corners=head.align_corners
        )
        logits = resize(crop(logits, content), size, self.segmentor.align_corners)
        if logits.shape[1] == 1:
            scores = logits[:, 0].sigmoid()
            labels = scores > head.threshold
            return labels.long(), scores.where(labels, 1 - scores)
        scores, labels = logits.softmax(dim=1).max(dim=1)
        return labels, scores


def check_segmentor(segmentor: Any) -> None:
    """Checks that a segmentor's kind of prediction can be exported.

    Raises:
        UserError: If it cannot.
    """
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.models.segmentors import EncoderDecoder

    supported = (
        "supported are EncoderDecoder with one decode head that has mmseg's own predict, such as "
        'UPerHead, FCNHead or PSPHead'
    )
    if type(segmentor) is not EncoderDecoder:
        raise UserError(f'{type(segmentor).__name__} cannot be exported as a whole: {supported}')
    head = type(segmentor.decode_head)
    own = (head.predict, head.predict_by_feat)
    if own != (BaseDecodeHead.predict, BaseDecodeHead.predict_by_feat):
        raise UserError(
            f'a segmentor with {head.__name__} cannot be exported as a whole: {supported}'
        )
    if segmentor.test_cfg.mode != 'whole':
        raise UserError(
            'sliding windows cannot be exported: --cfg-options model.test_cfg.mode=whole segments '
            'the image at once, or --part backbone exports the backbone'
        )
