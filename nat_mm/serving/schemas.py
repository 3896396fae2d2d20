"""Responses of the server as pydantic models, which also appear on the OpenAPI page."""

from enum import StrEnum
from typing import Literal

import cv2
import numpy as np
from pydantic import BaseModel, Field

from nat_mm.inference.mask_crops import MaskCrop
from nat_mm.inference.model import Model
from nat_mm.inference.results import DetectionResult, Result, SegmentationResult
from nat_mm.serving.intake import Limits


class MaskFormat(StrEnum):
    """Format of masks."""

    RLE = 'rle'
    POLYGON = 'polygon'
    NONE = 'none'


class Problem(BaseModel):
    """The reason why there is no result."""

    detail: str


class Health(BaseModel):
    """Whether the server can predict images."""

    ready: bool
    waiting: int = Field(description='images that have arrived and are not answered yet')
    version: str


class ModelInfo(BaseModel):
    """The model and what clients may send."""

    name: str
    task: str
    toolbox: str
    architecture: str
    parameters: int
    device: str
    classes: list[str]
    palette: list[tuple[int, int, int]] = Field(description='red, green, blue of each class')
    first_label: int = Field(description='number of the first class in label images')
    megabytes: float = Field(description='size of the largest file')
    megapixels: float = Field(description='size of the largest image')
    batch_size: int
    queue: int = Field(description='number of images that may wait')
    timeout: float = Field(description='seconds')

    @classmethod
    def of(cls, model: Model, limits: Limits, *, name: str) -> 'ModelInfo':
        """Describes a model.

        Args:
            model: The model.
            limits: Limits on what clients may use.
            name: Name of the model.
        """
        return cls(
            name=name,
            task=model.task,
            toolbox=model.scope,
            architecture=type(model.module).__name__,
            parameters=sum(parameter.numel() for parameter in model.module.parameters()),
            device=str(next(model.module.parameters()).device),
            classes=model.classes,
            palette=model.palette,
            first_label=model.first_label,
            megabytes=limits.megabytes,
            megapixels=limits.megapixels,
            batch_size=limits.batch_size,
            queue=limits.queue,
            timeout=limits.timeout,
        )


class RunLengths(BaseModel):
    """A mask in COCO's compressed run-length encoding."""

    size: tuple[int, int] = Field(description='height, width')
    counts: str


class Region(BaseModel):
    """Something in the image."""

    label: int = Field(description='index in the classes of /model')
    class_name: str
    mask: RunLengths | None = None
    polygons: list[list[float]] | None = Field(
        None, description="x1, y1, x2, y2, ... of each part's outline; holes are filled"
    )


class Instance(Region):
    """An object."""

    score: float
    bbox: tuple[float, float, float, float] = Field(description='x1, y1, x2, y2 in pixels')


class Segment(BaseModel):
    """A segment of a panoptic model."""

    id: int = Field(description='its number in the PNG: red + 256 green + 256 * 256 blue')
    label: int
    class_name: str
    area: int = Field(description='pixels')


class Share(Region):
    """A class of a label map."""

    share: float = Field(description='share of the pixels, from 0 to 1')


class Score(BaseModel):
    """A class that an image may belong to."""

    label: int
    class_name: str
    score: float


class Answer(BaseModel):
    """What all results have in common."""

    height: int
    width: int


class Detection(Answer):
    """Objects, highest score first."""

    task: Literal['detection'] = 'detection'
    instances: list[Instance]
    segments: list[Segment] | None = None


class Segmentation(Answer):
    """Classes of the pixels, most frequent first."""

    task: Literal['segmentation'] = 'segmentation'
    classes: list[Share]


class Classification(Answer):
    """The five most likely classes, in descending order."""

    task: Literal['classification'] = 'classification'
    classes: list[Score]


ANSWERS: dict[str, type[Answer]] = {
    'detection': Detection,
    'segmentation': Segmentation,
    'classification': Classification,
}
"""Responses by task of the model."""


def describe(result: Result, masks: MaskFormat) -> Answer:
    """Converts a result to the server's response."""
    height, width = result.image.shape[:2]
    size = {'height': height, 'width': width}
    if isinstance(result, DetectionResult):
        described = result.describe(with_masks=masks == MaskFormat.RLE)
        instances = [Instance(**each) for each in described['instances']]
        if masks == MaskFormat.POLYGON and result.masks is not None:
            for instance, mask in zip(instances, result.masks, strict=True):
                instance.polygons = outline(mask)
        return Detection(**size, instances=instances, segments=described.get('segments'))
    if isinstance(result, SegmentationResult):
        shares = [Share(**each) for each in result.describe()['classes']]
        codes = {}
        if masks == MaskFormat.RLE:
            entries = result.to_coco()
            codes = {entry['category_id'] - 1: entry['segmentation'] for entry in entries}
        for share in shares:
            if masks == MaskFormat.RLE:
                share.mask = RunLengths(**codes[share.label])
            elif masks == MaskFormat.POLYGON:
                share.polygons = outline(result.label_map == share.label)
        return Segmentation(**size, classes=shares)
    return Classification(**size, classes=[Score(**each) for each in result.describe()['classes']])


def outline(mask: np.ndarray) -> list[list[float]]:
    """Returns the outlines of a mask's parts as COCO polygons.

    Args:
        mask: [height, width], bool.

    Returns:
        x1, y1, x2, y2, ... of each part with at least three corners, in centers of pixels.
    """
    crop = MaskCrop.of(mask)
    if not crop.mask.size:
        return []
    parts, _ = cv2.findContours(
        crop.mask.astype(np.uint8),
        cv2.RETR_EXTERNAL,
        cv2.CHAIN_APPROX_SIMPLE,
        offset=(crop.left, crop.top),
    )
    return [part.astype(float).ravel().tolist() for part in parts if len(part) >= 3]
