"""What models found in images, kept small for as long as a visitor may come back to it."""

import zlib
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from nat_mm.inference.inputs import Frame

DRAWN_SIDE = 768
"""About the longest side, in pixels, to which small images are enlarged before drawing on them:
letters have a smallest size."""

_MAPS = {'pred_instances': 'masks', 'pred_sem_seg': 'data', 'pred_panoptic_seg': 'sem_seg'}
"""What is as large as the image, by the part of a sample that holds it."""

_FOUND = (*_MAPS, 'pred_score', 'pred_label')


class PackedMap:
    """Masks, a label map or an image, compressed without loss.

    Args:
        values: Of any shape; bool, integers or floating-point numbers.
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
        """Bytes."""
        return len(self._content)

    def unpack(self) -> Tensor:
        """The values, to the bit."""
        array = np.frombuffer(zlib.decompress(self._content), self._stored_dtype)
        if self._dtype.kind == 'b':
            array = np.unpackbits(array, count=int(np.prod(self._shape)))
        return torch.from_numpy(array.astype(self._dtype).reshape(self._shape))


@dataclass(frozen=True, eq=False)
class PackedFinding:
    """What a model found in an image; made by `pack_finding`.

    Attributes:
        model: Name of the model.
        file_name: What the image's file is called.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        seconds: Time that the model took, with preparing its input.
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
        """Bytes, without what every finding has."""
        packed = [*self._maps.values(), *([self._pixels] if self._pixels else [])]
        return len(self._png) + sum(each.size for each in packed)

    @property
    def enlargement(self) -> int:
        """How many pixels wide and high each pixel is drawn."""
        return max(1, round(DRAWN_SIDE / max(self.height, self.width)))

    def frame(self) -> Frame:
        """The image."""
        image = cv2.imdecode(np.frombuffer(self._png, np.uint8), cv2.IMREAD_COLOR)
        results = None
        if self._pixels is not None:
            pixels, shape = self._pixels.unpack().numpy(), (self.height, self.width)
            results = {'img': pixels, 'img_path': None, 'img_shape': shape, 'ori_shape': shape}
        return Frame(image, 'image', self.file_name, results=results)

    def enlarged_image(self) -> np.ndarray:
        """The image as it is drawn on, BGR."""
        size = (self.width * self.enlargement, self.height * self.enlargement)
        return cv2.resize(self.frame().image, size, interpolation=cv2.INTER_CUBIC)

    def sample(self) -> BaseDataElement:
        """What was found, on the CPU, in pixels of the image."""
        sample = self._sample.clone()
        for name, packed in self._maps.items():
            part = getattr(sample, name).clone()
            setattr(part, _MAPS[name], packed.unpack())
            setattr(sample, name, part)
        return sample


def pack_finding(
    model: str, frame: Frame, sample: BaseDataElement, *, seconds: float, lowest_score: float
) -> PackedFinding:
    """Keeps of a model's output what the page draws and writes.

    Args:
        model: Name of the model.
        frame: The image; its ``results`` are kept, too, if there are any.
        sample: What the model found in it, as the toolbox describes it.
        seconds: Time that the model took.
        lowest_score: Objects below it are left out.

    Returns:
        The finding.
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
