"""Crops the masks of objects to their non-empty part."""

from dataclasses import dataclass

import cv2
import numpy as np
from pycocotools import mask as coco_mask


@dataclass(frozen=True, eq=False)
class MaskCrop:
    """The non-empty part of a mask; a whole mask takes 50 MB in an image of 50 megapixels.

    Attributes:
        left: Column of its left edge in the image.
        top: Row of its upper edge in the image.
        mask: [height, width], bool; 0 x 0 for an empty mask.
    """

    left: int
    top: int
    mask: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray, *, left: int = 0, top: int = 0) -> 'MaskCrop':
        """Crops a mask.

        Args:
            mask: [height, width], bool or numbers.
            left: Column of the mask's left edge in the image.
            top: Row of its upper edge in the image.

        Returns:
            The crop; a view if the mask is bool.
        """
        mask = mask.astype(bool, copy=False)
        x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
        return cls(left + x, top + y, mask[y : y + height, x : x + width])

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the crop in the image."""
        height, width = self.mask.shape
        return self.left, self.top, self.left + width, self.top + height

    def united(self, other: 'MaskCrop') -> 'MaskCrop':
        """Returns the union of two masks."""
        if not self.mask.size or not other.mask.size:
            return self if self.mask.size else other
        starts, ends = np.minimum(self.box, other.box)[:2], np.maximum(self.box, other.box)[2:]
        left, top = (int(start) for start in starts)
        mask = np.zeros((int(ends[1]) - top, int(ends[0]) - left), bool)
        for each in (self, other):
            x, y, right, bottom = each.box
            mask[y - top : bottom - top, x - left : right - left] |= each.mask
        return MaskCrop(left, top, mask)

    def in_image(self, height: int, width: int) -> np.ndarray:
        """Returns the whole mask, [height, width], bool."""
        mask = np.zeros((height, width), bool)
        left, top, right, bottom = self.box
        mask[top:bottom, left:right] = self.mask
        return mask

    def encode(self, height: int, width: int) -> dict:
        """Encodes the whole mask as COCO's RLE, like ``pycocotools.mask.encode``.

        Args:
            height: Height of the image.
            width: Width of the image.
        """
        left, top, right, bottom = self.box
        columns = np.zeros((right - left, height), bool)  # the encoding goes down the columns
        columns[:, top:bottom] = self.mask.T
        changes = np.flatnonzero(np.diff(columns.ravel(), prepend=False))
        runs = np.diff(changes + left * height, prepend=0, append=height * width)
        return coco_mask.frPyObjects(
            {'size': [height, width], 'counts': runs.tolist()}, height, width
        )
