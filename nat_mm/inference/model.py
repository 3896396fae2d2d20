"""Predicts images with models of mmdet, mmseg and mmpretrain."""

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import BaseDataElement
from torch import nn

from nat_mm.config.datasets import find_test_dataset
from nat_mm.config.reading import config_mistakes
from nat_mm.errors import UserError, brief
from nat_mm.inference.drawing import SCORE_THRESHOLD
from nat_mm.inference.images import UnreadableInput
from nat_mm.inference.inputs import Frame, find_inputs, read_all
from nat_mm.inference.loading import ImageLoader
from nat_mm.inference.model_settings import low_scores_kept, retrieves, small_images_padded
from nat_mm.inference.results import RESULT_TYPES, Result
from nat_mm.inference.tiling import Tiling, infer_tiled
from nat_mm.inference.video import Video

_PREDICTED = {'mmseg': 'pred_sem_seg', 'mmpretrain': 'pred_score'}
"""What the results of a toolbox's models are made of; depths and several tasks have others."""
_NO_LISTS = (str, np.ndarray, bytes, io.IOBase, torch.Tensor)
"""Single inputs, right or wrong, that Python can iterate over."""


class Model:
    """A model that takes images and returns results.

    Created by `nat_mm.load_model`. Use models from one thread at a time, because OpenMMLab's scope
    and matplotlib are global.

    Attributes:
        module: The PyTorch module, in eval mode.
        config: Its config.
        dataset_meta: What is known about its data, including ``classes`` and ``palette``.
    """

    def __init__(self, module: nn.Module, config: Config, dataset_meta: dict[str, Any]) -> None:
        self.module = module
        self.config = config
        self.dataset_meta = dataset_meta
        module.dataset_meta = dataset_meta  # type: ignore[assignment]  # where the toolboxes look

    def __repr__(self) -> str:
        return f'{type(self).__name__}({type(self.module).__name__}, {self.task})'

    @property
    def scope(self) -> str:
        """The toolbox that the model is from: ``mmdet``, ``mmseg`` or ``mmpretrain``."""
        return self.config.default_scope

    @property
    def task(self) -> str:
        """``detection``, ``segmentation`` or ``classification``."""
        return RESULT_TYPES[self.scope].task

    @property
    def classes(self) -> list[str]:
        """Names of the classes, by label."""
        return list(self.dataset_meta['classes'])

    @property
    def palette(self) -> list[tuple[int, int, int]]:
        """Colors of the classes, RGB, 0 to 255."""
        return [(red, green, blue) for red, green, blue in self.dataset_meta['palette']]

    @cached_property
    def first_label(self) -> int:
        """Number of the first class in label images: 1 if the dataset has ``reduce_zero_label``."""
        return int(_reduces_zero_label(self.config))

    @property
    def label_dtype(self) -> type[np.unsignedinteger]:
        """Data type of a label map with class indices: uint8, or uint16 above 256 classes."""
        return np.uint8 if len(self.dataset_meta['classes']) <= 256 else np.uint16

    def predict(
        self,
        inputs: str | Path | np.ndarray | Iterable[str | Path | np.ndarray],
        *,
        score_threshold: float = SCORE_THRESHOLD,
        batch_size: int = 1,
        tiling: Tiling | None = None,
    ) -> Result | list[Result]:
        """Predicts images.

        Args:
            inputs: An image, which is a file or an array [height, width, 3], uint8, BGR as OpenCV
                reads it; or a folder of images, a glob, or a list of any of these. The config's
                test pipeline loads files. If it yields other arrays, such as 16-bit or
                multi-channel ones, these can be passed, too.
            score_threshold: Drops objects of a detector with lower scores, 0 to 1. It may be lower
                than the threshold of the config.
            batch_size: Number of images of the same shape, or of tiles, to predict at once.
            tiling: Tiles in which to predict images that are too large for the model; see `Tiling`.

        Returns:
            The result of a single image, or a list of results in the order of the inputs. See
            `DetectionResult`, `SegmentationResult` and `ClassificationResult`.

        Raises:
            UserError: An image cannot be read, an argument is out of range, the model needs
                proposals, or it does not support tiles; see `nat_mm.inference.tiling.infer_tiled`.
            TypeError: An input is neither a path nor an array of uint8, or ``tiling`` no `Tiling`.
        """
        if not 0 <= score_threshold <= 1:
            raise UserError(f'score_threshold must be from 0 to 1, got {score_threshold}')
        if batch_size < 1:
            raise UserError(f'batch_size must be at least 1, got {batch_size}')
        if not isinstance(tiling, Tiling | None):
            raise TypeError(f'tiling must be a Tiling, got {brief(tiling)}')
        is_image = isinstance(inputs, np.ndarray)
        if isinstance(inputs, str | Path):
            is_image = os.path.isfile(inputs)
        entries: list[Any] = [inputs]
        if isinstance(inputs, Iterable) and not isinstance(inputs, _NO_LISTS):
            entries = list(inputs)
        results = []
        with _unreadable_refused(), self.low_scores_kept(score_threshold):
            frames = [frame for entry in entries for frame in _read(entry, self.loader)]
            for batch in batches(frames, 1 if tiling else batch_size):
                if tiling is None:
                    samples = self.infer(batch)
                else:
                    samples = infer_tiled(
                        self, batch, tiling, tiles_at_once=batch_size, lowest_score=score_threshold
                    )
                for frame, sample in zip(batch, samples, strict=True):
                    results.append(self.result(frame, sample, score_threshold=score_threshold))
        return results[0] if is_image else results

    @torch.no_grad()
    def infer(self, frames: Sequence[Frame]) -> list[BaseDataElement]:
        """Runs the model on a batch of images.

        Images that are too small for a backbone of nat_mm are padded on the right and at the
        bottom.

        Args:
            frames: The images, all of one shape.

        Returns:
            The toolbox's data sample for each image.

        Raises:
            UnreadableInput: The config's test pipeline drops an image.
            UserError: The model predicts neither objects, a label map nor the class of an image.
        """
        if retrieves(self.module):
            raise UserError(self._describe_other_results('looks for similar images'))
        with DefaultScope.overwrite_default_scope(self.scope):
            batch = pseudo_collate([self._prepare(frame) for frame in frames])
            with small_images_padded(self.module, batch['inputs']):
                samples = cast(BaseModel, self.module).test_step(batch)
        wanted = _PREDICTED.get(self.scope)
        if wanted is not None and not all(wanted in sample for sample in samples):
            raise UserError(self._describe_other_results(f'predicts no {wanted}'))
        return samples

    def _describe_other_results(self, what: str) -> str:
        return (
            f'{self.config.filename}: {type(self.module).__name__} {what}, so that only nat-mm '
            'test can run the model'
        )

    def low_scores_kept(self, threshold: float) -> AbstractContextManager[None]:
        """Lets a detector find objects with low scores within a ``with`` block.

        Args:
            threshold: The lowest score, if it is lower than the thresholds of the config.
        """
        return low_scores_kept(self.module, threshold)

    def result(self, frame: Frame, sample: BaseDataElement, *, score_threshold: float) -> Result:
        """Makes the result of an image from the output of `infer`.

        Args:
            frame: The image.
            sample: The toolbox's data sample.
            score_threshold: Drops objects of a detector with lower scores.
        """
        return RESULT_TYPES[self.scope](self, frame, sample, score_threshold=score_threshold)

    @cached_property
    def loader(self) -> ImageLoader:
        """Loads images like the config's test pipeline."""
        return ImageLoader(self.config)

    @cached_property
    def _pipeline(self) -> Callable[[dict], dict | None]:
        """The rest of the config's test pipeline, for images that have been loaded."""
        if self.loader.needs_proposals:
            raise UserError(
                f'{self.config.filename} takes proposals from a file of its dataset, so that only '
                'nat-mm test can run the model'
            )
        with config_mistakes(self.config), DefaultScope.overwrite_default_scope(self.scope):
            return Compose(self.loader.others)

    def loaded(self, frame: Frame) -> dict[str, Any]:
        """Returns the config loader's results for an image, or makes them from its drawing."""
        return frame.results or self.loader.load_array(frame.image).results

    def _prepare(self, frame: Frame) -> dict:
        prepared = self._pipeline(dict(self.loaded(frame)))
        if prepared is None:
            raise UnreadableInput('the test pipeline of the config leaves it out')
        return prepared


def batches(frames: Iterable[Frame], batch_size: int) -> Iterable[list[Frame]]:
    """Groups consecutive images of the same shape, as mmseg requires."""
    batch: list[Frame] = []
    for frame in frames:
        if batch and (len(batch) == batch_size or frame.pixels.shape != batch[0].pixels.shape):
            yield batch
            batch = []
        batch.append(frame)
    if batch:
        yield batch


def _read(entry: str | Path | np.ndarray, loader: ImageLoader) -> list[Frame]:
    """Reads the images of one input of `Model.predict`."""
    if isinstance(entry, np.ndarray):
        loaded = loader.load_array(entry)
        return [Frame(loaded.drawing, 'image', 'image', results=loaded.results)]
    if not isinstance(entry, str | Path):
        raise TypeError(f'an image must be a path or an array, got {brief(entry)}')
    media = find_inputs([str(entry)])
    videos = [medium for medium in media if isinstance(medium, Video)]
    if videos:
        raise UserError(f'{videos[0]} is a video: use the command nat-mm predict')
    return list(read_all(media, loader))


@contextmanager
def _unreadable_refused() -> Iterator[None]:
    """Turns an `UnreadableInput`, which others report and leave out, into a UserError."""
    try:
        yield
    except UnreadableInput as error:
        raise UserError(f'an image cannot be predicted: {error}') from error


def _reduces_zero_label(config: Config) -> bool:
    """Whether 0 is not a class in the label images of the config's test dataset."""
    dataset = find_test_dataset(config)
    try:
        with DefaultScope.overwrite_default_scope(config.default_scope):
            # Many datasets of mmseg set it in their code.
            built = DATASETS.build({**dataset, 'lazy_init': True, 'pipeline': []})
    except Exception:
        # The dataset may need files that are not available.
        built = None
    return bool(getattr(built, 'reduce_zero_label', dataset.get('reduce_zero_label', False)))
