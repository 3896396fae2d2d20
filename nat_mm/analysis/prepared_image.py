"""Prepares an image as input for a model's backbone."""

from dataclasses import dataclass

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from nat_mm.config.datasets import find_test_dataset
from nat_mm.config.objects import type_name
from nat_mm.inference.inputs import Frame

SMALLEST_SIDE = 32


@dataclass(frozen=True)
class PreparedImage:
    """An image prepared as input for a backbone.

    Positions in the tensor are ``scale`` times those in the original image. The image is never
    cropped, even if a classifier's test pipeline crops, but may be padded on the right and at the
    bottom.
    """

    tensor: Tensor
    """[1, channels, H, W], normalized, on the device of the model."""
    resized: np.ndarray
    """[height, width, 3], uint8, BGR: the image to draw on, in its size before padding."""
    scale: tuple[float, float]
    """Pixels of the tensor per pixel of the image, (x, y)."""

    def to_tensor(self, point: tuple[float, float]) -> tuple[float, float]:
        """Converts (x, y) in the image to (x, y) in the tensor."""
        return point[0] * self.scale[0], point[1] * self.scale[1]


def prepare_image(
    model: nn.Module,
    config: Config,
    image: Frame | np.ndarray,
    *,
    short_side: int | None = None,
) -> PreparedImage:
    """Resizes and normalizes an image for a model of mmdet, mmseg or mmpretrain.

    Args:
        model: The model, with its ``data_preprocessor``.
        config: Its config, whose test pipeline says how to resize.
        image: From `read_frames`; or [height, width, 3], uint8, BGR.
        short_side: Resizes the shorter side to this many pixels, at least 32, instead.

    Returns:
        The input of the model's backbone.

    Raises:
        ValueError: The image is too small or too elongated for the backbone, or ``short_side``
            is below 32.
    """
    if isinstance(image, np.ndarray):
        image = Frame(image, 'image', 'image')
    drawing, pixels = image.image, np.asarray(image.pixels)
    height, width = pixels.shape[:2]
    if short_side is not None:
        if short_side < SMALLEST_SIDE:
            raise ValueError(f'short_side must be at least {SMALLEST_SIDE}, got {short_side}')
        factor = short_side / min(height, width)
        size = (max(short_side, round(width * factor)), max(short_side, round(height * factor)))
        resized = mmcv.imresize(pixels, size, interpolation='bilinear')
    else:
        resized = _resize_as_in_tests(config, pixels)
    if min(resized.shape[:2]) < SMALLEST_SIDE:
        raise ValueError(
            f'an image must have {SMALLEST_SIDE} pixels on each side when it is resized for the '
            f'model, got {resized.shape[1]} x {resized.shape[0]} (width x height)'
        )
    if pixels is not drawing:
        drawing = mmcv.imresize(drawing, resized.shape[1::-1], interpolation='bilinear')
    else:
        drawing = resized
    channels_first = np.atleast_3d(resized).transpose(2, 0, 1)
    channels_first = torch.from_numpy(np.ascontiguousarray(channels_first))
    batch = {'inputs': [channels_first], 'data_samples': [BaseDataElement()]}
    with torch.no_grad():
        tensor = model.data_preprocessor(batch, False)['inputs']
    scale = (resized.shape[1] / width, resized.shape[0] / height)
    return PreparedImage(tensor=tensor, resized=drawing, scale=scale)


def _resize_as_in_tests(config: Config, image: np.ndarray) -> np.ndarray:
    """Applies those transforms of the test pipeline that resize and do not crop."""
    shape = image.shape[:2]
    results = {'img': image, 'img_shape': shape, 'ori_shape': shape}
    with DefaultScope.overwrite_default_scope(config.default_scope):
        for transform in find_test_dataset(config).get('pipeline', []):
            if type_name(transform) in ('Resize', 'ResizeEdge'):
                results = TRANSFORMS.build(transform)(results)
    return results['img']
