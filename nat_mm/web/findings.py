"""Keeps the results of models in compressed form for as long as a visitor may need them."""

import zlib
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from nat_mm.inference.inputs import Frame

DRAWN_SIDE = 768
"""Approximate longest side, in pixels, to which small images are enlarged before drawing on them,
because letters have a minimum size."""

_MAPS = {'pred_instances': 'masks', 'pred_sem_seg': 'data', 'pred_panoptic_seg': 'sem_seg'}
"""Name of the image-sized maps in each part of a sample."""

_FOUND = (*_MAPS, 'pred_score', 'pred_label')


class PackedMap:
    """Masks, a label map or an image, losslessly compressed.

    Args:
        values: Tensor of any shape; bool, integers or floating-point numbers.
    """

    def __init__(self, values: Tensor) -> None:
        array = values.numpy()
        self._shape, self._dtype = array.shape, array.dtype
        if array.dtype.kind == 'b':
            array = np.packbits(array)
        elif array.size and array.dtype.kind in 'iu':
            ends = array.min(), array.max()
            array = array.astype(np.promote_types(*map(np.min_scalar_type, ends)))
        self._stored_dtype = array.dtype
        self._content = zlib.compress(array, level=1)

    @property
    def size(self) -> int:
        """Compressed size in bytes."""
        return len(self._content)

    def unpack(self) -> Tensor:
        """Restores the exact values."""
        array = np.frombuffer(zlib.decompress(self._content), self._stored_dtype)
        if self._dtype.kind == 'b':
            array = np.unpackbits(array, count=int(np.prod(self._shape)))
        return torch.from_numpy(array.astype(self._dtype).reshape(self._shape))


@dataclass(frozen=True, eq=False)
class PackedFinding:
    """The result of a model for an image; created by `pack_finding`.

    Attributes:
        model: Name of the model.
        file_name: Name of the image's file.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        seconds: Time that the model took, including preprocessing.
    """

    model: str
    file_name: str
    height: int
    width: int
    seconds: float
    _png: bytes
    _sample: BaseDataElement
    _maps: dict[str, PackedMap]
    _pixels: PackedMap | None = None

    @property
    def size(self) -> int:
        """Size in bytes, without the small parts that every result has."""
        packed = [*self._maps.values(), *([self._pixels] if self._pixels else [])]
        return len(self._png) + sum(each.size for each in packed)

    @property
    def enlargement(self) -> int:
        """Factor by which the image is enlarged on both axes for drawing."""
        return max(1, round(DRAWN_SIDE / max(self.height, self.width)))

    def frame(self) -> Frame:
        """Restores the image."""
        image = cv2.imdecode(np.frombuffer(self._png, np.uint8), cv2.IMREAD_COLOR)
        results = None
        if self._pixels is not None:
            pixels, shape = self._pixels.unpack().numpy(), (self.height, self.width)
            results = {'img': pixels, 'img_path': None, 'img_shape': shape, 'ori_shape': shape}
        return Frame(image, 'image', self.file_name, results=results)

    def enlarged_image(self) -> np.ndarray:
        """Returns the enlarged image to draw on, BGR."""
        size = (self.width * self.enlargement, self.height * self.enlargement)
        return cv2.resize(self.frame().image, size, interpolation=cv2.INTER_CUBIC)

    def sample(self) -> BaseDataElement:
        """Restores the toolbox's data sample, on the CPU, in pixels of the image."""
        sample = self._sample.clone()
        for name, packed in self._maps.items():
            part = getattr(sample, name).clone()
            setattr(part, _MAPS[name], packed.unpack())
            setattr(sample, name, part)
        return sample


def pack_finding(
    model: str, frame: Frame, sample: BaseDataElement, *, seconds: float, lowest_score: float
) -> PackedFinding:
    """Packs what the page draws and writes of a model's output.

    Args:
        model: Name of the model.
        frame: The image; its ``results``, if any, are also kept.
        sample: The toolbox's data sample with the model's output.
        seconds: Time that the model took.
        lowest_score: Objects with lower scores are left out.

    Returns:
        The packed result.
    """
    kept = type(sample)(metainfo=sample.metainfo)
    maps = {}
    for name in _FOUND:
        if name not in sample:
            continue
        part = getattr(sample, name)
        if name == 'pred_instances':
            part = part[part.scores >= lowest_score]
        part = part.cpu()
        if name in _MAPS and _MAPS[name] in part:
            maps[name] = PackedMap(getattr(part, _MAPS[name]))
            delattr(part, _MAPS[name])
        setattr(kept, name, part)
    _, png = cv2.imencode('.png', frame.image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    height, width = frame.image.shape[:2]
    pixels = frame.results and PackedMap(torch.from_numpy(frame.results['img']))
    return PackedFinding(
        model, frame.file_name, height, width, seconds, png.tobytes(), kept, maps, pixels
    )
