"""Loads images like the test pipeline of a config, along with versions to draw on."""

import io
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope

from nat_mm.config.datasets import find_test_dataset
from nat_mm.config.objects import find_class, type_name, walk_dicts
from nat_mm.config.reading import config_mistakes
from nat_mm.errors import UserError
from nat_mm.inference.image_sizes import image_size
from nat_mm.inference.images import (
    UnreadableInput,
    check_bytes,
    check_size,
    read_image_file,
    to_drawing,
)

_NO_IMAGE = 'not an image that can be read'
_DECODERS = ('cv2', 'PIL', 'tifffile')
_TOOLBOXES = ('mmcv', 'mmdet', 'mmpretrain', 'mmseg')
_GRAY = ('grayscale', 'grayscale_ignore_orientation')


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """An image as loaded by the first transform of a pipeline.

    Attributes:
        results: What the transform passes on, including ``img``: [height, width] or
            [height, width, channels], of any numeric type.
        drawing: The image to draw on: [height, width, 3], uint8, BGR.
    """

    results: dict[str, Any]
    drawing: np.ndarray


class ImageLoader:
    """Loads images like the test pipeline of a config.

    Args:
        config: The config. None loads images like ``LoadImageFromFile`` without arguments.

    Attributes:
        others: Configs of the other transforms, without those that load annotations.
        needs_proposals: Whether these load proposals, as those of Fast R-CNN do.

    Raises:
        UserError: The config has no test pipeline, or one for videos, or its loader cannot be
            built.
    """

    def __init__(self, config: Config | None = None) -> None:
        self._description: Any = None
        self.others: list[dict[str, Any]] = []
        self.needs_proposals = False
        self._load: Any = LoadImageFromFile()
        if config is None:
            return
        pipeline = find_test_dataset(config).get('pipeline')
        if not pipeline:
            raise UserError(f'{config.filename} has no test_dataloader with a pipeline')
        if type_name(pipeline[-1]) == 'PackTrackInputs':
            raise UserError(
                f"{config.filename} takes the frames of its dataset's videos, not single images, "
                'so that only nat-mm test can run the model'
            )
        transforms = [each for each in pipeline if 'Annotation' not in type_name(each)]
        loaders = [each for each in transforms if 'Load' in type_name(each)]
        if not loaders and _takes_arrays(config, transforms):
            self._load, self.others = None, transforms
            return
        # A loader with another name must be the first transform.
        loaders = loaders or transforms[:1]
        self._description = loaders[0]
        self.others = [each for each in transforms if each is not self._description]
        self.needs_proposals = any('LoadProposals' in type_name(each) for each in self.others)
        with config_mistakes(config), DefaultScope.overwrite_default_scope(config.default_scope):
            try:
                self._load = TRANSFORMS.build(self._description)
            except (ImportError, RuntimeError) as error:  # mmseg's raise these without GDAL
                raise UserError(f'{config.filename}: {error}') from error

    def load_file(self, path: Path, *, max_megapixels: float = float('inf')) -> LoadedImage:
        """Loads an image file.

        Args:
            path: The file.
            max_megapixels: Size of the largest image that is decoded.

        Returns:
            The image.

        Raises:
            UnreadableInput: It is not an image, or too large; see `read_image_file`.
            OSError: The file cannot be opened.
            UserError: The pipeline loads no files.
        """
        content = read_image_file(path, max_megapixels=max_megapixels)
        loaded = self._load_content(content, path, max_megapixels)
        loaded.results['img_path'] = str(path)
        return loaded

    def load_bytes(self, content: bytes, *, max_megapixels: float = float('inf')) -> LoadedImage:
        """Loads the content of an image file.

        Args:
            content: The content.
            max_megapixels: Size of the largest image that is decoded.

        Returns:
            The image.

        Raises:
            UnreadableInput: It is not an image of known size, is damaged, or is too large.
            UserError: The pipeline loads no files.
        """
        size = image_size(io.BytesIO(content))
        if size is None:
            raise UnreadableInput(_NO_IMAGE)
        check_size(*size, max_megapixels)
        if self._decodes_files:
            return self._load_content(content, None, max_megapixels)
        with TemporaryDirectory(prefix='nat_mm_') as folder:
            path = Path(folder, 'image')
            path.write_bytes(content)
            return self._load_content(content, path, max_megapixels)

    def _load_content(
        self, content: bytes, path: Path | None, max_megapixels: float
    ) -> LoadedImage:
        """Loads a file whose header has been checked; needs a path unless `_decodes_files`."""
        if self._load is None:
            raise UserError(
                "the config's test pipeline takes arrays from its dataset, such as MNIST's: let it "
                'begin with LoadImageFromFile to load files'
            )
        if not content:
            raise UnreadableInput(_NO_IMAGE)
        try:
            if self._decodes_files:
                loaded = self._decode(content, max_megapixels)
            else:
                loaded = self._load_by_path(str(path))
        except Exception as error:
            if not _is_by_decoder(error):
                raise
            raise UnreadableInput(_NO_IMAGE) from error
        height, width = loaded.drawing.shape[:2]
        check_size(width, height, max_megapixels)
        return loaded

    def load_source(self, path: str | list[str]) -> LoadedImage:
        """Loads an image of the config's own dataset, which may not be on this machine.

        Args:
            path: Its location according to the dataset, or those of several images.

        Returns:
            The image; for several, the drawing shows the first.

        Raises:
            UnreadableInput: It is not an image.
        """
        if self._decodes_files:
            content = fileio.get(path, backend_args=self._load.backend_args)
            return self._decode(content, float('inf'))
        return self._load_by_path(path)

    def load_array(self, image: np.ndarray) -> LoadedImage:
        """Treats an image in memory as if a decoder had returned it.

        Args:
            image: [height, width, 3], uint8, BGR; or another array that the config's loader may
                return.

        Returns:
            The image.

        Raises:
            TypeError: It is not such an array.
        """
        if not self.takes(image):
            raise TypeError(
                'an image must be an array [height, width, 3] of uint8, got '
                f'{list(image.shape)} of {image.dtype}'
            )
        drawing = to_drawing(image)
        if getattr(self._load, 'color_type', None) in _GRAY:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
            drawing = to_drawing(image)
        return LoadedImage(self._results(image), drawing)

    def takes(self, image: np.ndarray) -> bool:
        """Whether `load_array` accepts an array."""
        if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
            return True
        always_8_bit = self._decodes_files and self._load.color_type != 'unchanged'
        return not always_8_bit and image.ndim in (2, 3) and image.dtype.kind in 'buif'

    def loads_like(self, other: 'ImageLoader') -> bool:
        """Whether another loader loads the same file in the same way."""
        return self._key == other._key

    @property
    def _key(self) -> Any:
        if not self._decodes_files:
            return self._description
        return self._load.color_type, self._load.imdecode_backend, self._load.to_float32

    @property
    def _decodes_files(self) -> bool:
        """Whether the loader decodes the content of a file and does nothing else."""
        return getattr(type(self._load), 'transform', None) is LoadImageFromFile.transform

    def _load_by_path(self, path: str | list[str]) -> LoadedImage:
        """Loads a file, or several, with a loader that opens it itself."""
        results = self._load({'img_path': path})
        if results is None:
            raise UnreadableInput(_NO_IMAGE)
        image = results['img'][0] if isinstance(results['img'], list) else results['img']
        return LoadedImage(results, to_drawing(np.asarray(image)))

    def _decode(self, content: bytes, max_megapixels: float) -> LoadedImage:
        """Decodes the content of a file like `LoadImageFromFile`."""
        if self._load.imdecode_backend == 'tifffile':
            import tifffile

            with tifffile.TiffFile(io.BytesIO(content)) as file:
                # Check all pages of the file; the header describes only the first.
                check_bytes(sum(page.nbytes for page in file.pages), max_megapixels)
        image = mmcv.imfrombytes(
            content, flag=self._load.color_type, backend=self._load.imdecode_backend
        )
        if image is None:
            raise UnreadableInput(_NO_IMAGE)
        return LoadedImage(self._results(image), to_drawing(image))

    def _results(self, image: np.ndarray) -> dict[str, Any]:
        if getattr(self._load, 'to_float32', False):
            image = image.astype(np.float32)
        shape = image.shape[:2]
        return {'img': image, 'img_path': None, 'img_shape': shape, 'ori_shape': shape}


def _takes_arrays(config: Config, transforms: Sequence[dict[str, Any]]) -> bool:
    """Whether a pipeline without a known loader surely loads no file; users' transforms may."""
    kind = find_class(TRANSFORMS, transforms[0], config) if transforms else None
    if kind is None or _package(kind.__module__) not in _TOOLBOXES:
        return False
    return not any('Load' in type_name(each) for _, each in walk_dicts(list(transforms)))


def _is_by_decoder(error: Exception) -> bool:
    """Whether an error is a decoder's answer to a damaged file.

    OpenCV raises its own exceptions; Pillow and tifffile raise any, of which a ValueError explains
    itself.
    """
    if _package(type(error).__module__) in _DECODERS:
        return True
    if isinstance(error, ValueError | MemoryError):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(_package(frame.f_globals.get('__name__', '')) in _DECODERS for frame in frames)


def _package(module: str) -> str:
    return module.split('.')[0]
