"""Draws the batches that a model receives in training."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import VISUALIZERS
from mmengine.runner import Runner, set_random_seed
from mmengine.structures import BaseDataElement, PixelData
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nat_mm.config.reading import config_mistakes
from nat_mm.data.broken_samples import loading_mistakes, name_broken_samples
from nat_mm.data.mistakes import check_dataset, data_mistakes
from nat_mm.data.palettes import complete_palettes
from nat_mm.errors import UserError
from nat_mm.inference.drawing import classes_of_dataset, draw_sample
from nat_mm.inference.images import to_drawing
from nat_mm.inference.load_model import build_module

NO_CLASS = 255
"""Label of pixels without annotation, and of padding."""
_BRIGHTEST_PHOTOGRAPH = 512
"""Augmentation pushes 8-bit images beyond 255, but not this far."""


@dataclass(frozen=True)
class DrawnInput:
    """An image of a batch.

    Attributes:
        image: [height, width, 3], uint8, RGB: what the model receives, with normalization
            undone, padding included, and the ground truth drawn.
        source: File that the image was made from; None if the config does not pass it on.
    """

    image: np.ndarray
    source: str | None


def draw_batches(config: Config, split: str, *, seed: int) -> Iterator[DrawnInput]:
    """Draws the images of one epoch, in their order and with the padding of their batches.

    The data loader and the preprocessor are those of the config. The seed determines everything
    random: the order, the augmentation in the data loader's workers (the same as in a training run
    with that seed), and the augmentation in this process, which is done by the preprocessor and by
    a data loader without workers.

    Args:
        config: Config of the training run.
        split: ``train``, ``val`` or ``test``.
        seed: Random seed.

    Yields:
        The images.

    Raises:
        UserError: The config has no such data, data are missing or wrong, the pipeline fails,
            or the preprocessor's output is not a batch of images.
    """
    if config.get(f'{split}_dataloader') is None:
        raise UserError(f'{config.filename} has no {split}_dataloader')
    complete_palettes(config)
    with config_mistakes(config):
        preprocessor, is_rgb = _build_preprocessor(config)
    with data_mistakes(config, split):
        loader = Runner.build_dataloader(config[f'{split}_dataloader'], seed=seed)
    check_dataset(config, loader.dataset, split)
    name_broken_samples(loader, config, split)
    draw = _choose_drawing(config, getattr(loader.dataset, 'metainfo', {}))
    unscaled = _loads_annotations_after_resizing(loader.dataset)
    set_random_seed(seed)
    left = len(loader.dataset)
    for iteration, batch in enumerate(_load(loader, config, split)):
        # mmdet's BatchSyncRandomResize asks the runner's message hub when to change the size.
        MessageHub.get_current_instance().update_info('iter', iteration)
        data = preprocessor(batch, training=split == 'train')
        if not isinstance(data['inputs'], Tensor) or data['inputs'].ndim != 4:
            raise UserError(f'{config.filename}: its data_preprocessor gives no batch of images')
        for tensor, sample in zip(data['inputs'], data['data_samples'], strict=True):
            image = _undo_normalization(tensor, preprocessor, is_rgb=is_rgb)
            if unscaled:
                _scale_annotations(sample)
            _pad_annotations(sample, image.shape[:2])
            yield DrawnInput(draw(image, sample), sample.metainfo.get('img_path'))
            left -= 1
            if left == 0:
                return  # an infinite sampler goes on with the next epoch


def _choose_drawing(
    config: Config, meta: dict
) -> Callable[[np.ndarray, BaseDataElement], np.ndarray]:
    """Returns the function that draws the ground truth of a sample over its image."""
    if config.default_scope != 'mmpretrain':
        classes, palette = classes_of_dataset(meta)
        return partial(draw_sample, classes=classes, palette=palette, truth=True)
    visualizer = VISUALIZERS.build(dict(type='UniversalVisualizer', name=config.filename))
    visualizer.dataset_meta = meta

    def draw_classes(image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        if 'gt_score' in sample:
            # Mixed images (Mixup, CutMix) have several classes: show them all.
            sample.set_gt_label(sample.gt_score.nonzero().flatten())
        visualizer.visualize_cls(image, sample, draw_pred=False)
        return visualizer.get_image()

    return draw_classes


def _load(loader: DataLoader, config: Config, split: str) -> Iterator[dict]:
    try:
        with loading_mistakes(config):
            yield from loader
    except UserError:
        raise
    # The user's pipeline may raise anything on a file that it was not written for.
    except Exception as error:
        # Errors from workers contain the worker's whole traceback as text.
        reason = f'{type(error).__name__}: {error}'.strip().splitlines()[-1]
        raise UserError(f'{config.filename}: cannot load {split} data: {reason}') from error


def _build_preprocessor(config: Config) -> tuple[nn.Module, bool]:
    """Builds the model's preprocessor and tells whether the images it returns are RGB."""
    settings = config.model.get('data_preprocessor') or config.get('data_preprocessor') or {}
    # Images are loaded as BGR.
    return build_module(config).data_preprocessor, bool(
        settings.get('bgr_to_rgb') or settings.get('to_rgb')
    )


def _undo_normalization(tensor: Tensor, preprocessor: nn.Module, *, is_rgb: bool) -> np.ndarray:
    """Converts a normalized [channels, height, width] to [height, width, 3], uint8, RGB."""
    if getattr(preprocessor, '_enable_normalize', False):
        tensor = tensor * preprocessor.std + preprocessor.mean
    pixels = tensor.permute(1, 2, 0).cpu()
    if pixels.max() < _BRIGHTEST_PHOTOGRAPH:
        pixels = pixels.round().clamp(0, 255).byte()
    image = to_drawing(pixels.numpy())
    return np.ascontiguousarray(image if is_rgb else image[..., ::-1])


def _loads_annotations_after_resizing(dataset: object) -> bool:
    """Whether annotations are loaded after resizing, at the file's size, as in validation."""
    pipeline = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    names = [type(transform).__name__ for transform in pipeline]
    loading = [index for index, name in enumerate(names) if 'Annotations' in name]
    resizing = [index for index, name in enumerate(names) if 'Resize' in name]
    return bool(loading and resizing) and loading[0] > resizing[0]


def _scale_annotations(sample: BaseDataElement) -> None:
    """Scales annotations from the size of the file to that of the image."""
    (height, width), (file_height, file_width) = sample.img_shape[:2], sample.ori_shape[:2]
    if 'gt_instances' in sample:
        instances = sample.gt_instances
        factors = torch.tensor([width / file_width, height / file_height] * 2)
        instances.bboxes = instances.bboxes * factors
        if 'masks' in instances:
            instances.masks = instances.masks.resize((height, width))
    _change_labels(
        sample,
        lambda labels: F.interpolate(labels[None].float(), (height, width))[0].to(labels.dtype),
    )


def _pad_annotations(sample: BaseDataElement, shape: tuple[int, int]) -> None:
    """Pads masks and pixel labels like the image, on the right and at the bottom."""
    if 'gt_instances' in sample and 'masks' in sample.gt_instances:
        sample.gt_instances.masks = sample.gt_instances.masks.pad(shape)

    def pad(labels: Tensor) -> Tensor:
        missing = (0, shape[1] - labels.shape[-1], 0, shape[0] - labels.shape[-2])
        return F.pad(labels, missing, value=NO_CLASS)

    _change_labels(sample, pad)


def _change_labels(sample: BaseDataElement, change: Callable[[Tensor], Tensor]) -> None:
    """Replaces the pixel labels, [1, height, width], if the sample has them."""
    if 'gt_sem_seg' in sample:
        name = 'data' if 'data' in sample.gt_sem_seg else 'sem_seg'  # mmseg's and mmdet's names
        sample.gt_sem_seg = PixelData(**{name: change(sample.gt_sem_seg.get(name))})
