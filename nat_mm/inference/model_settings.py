"""Changes settings of a model temporarily, as an image or a user requires."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from nat_mm.backbones.base import FreezableBackbone
from nat_mm.backbones.checks import SMALLEST_INPUT


@contextmanager
def low_scores_kept(model: nn.Module, threshold: float) -> Iterator[None]:
    """Lowers the score thresholds of a detector inside the ``with`` block.

    Args:
        model: The model.
        threshold: New value of thresholds that are higher.
    """
    with ExitStack() as stack:
        for module in model.modules():
            for settings in _nested(getattr(module, 'test_cfg', None)):
                score = settings.get('score_thr')
                if isinstance(score, int | float) and score > threshold:
                    settings['score_thr'] = threshold
                    stack.callback(settings.__setitem__, 'score_thr', score)
        yield


def _nested(settings: Any) -> Iterator[dict]:
    if isinstance(settings, dict):
        yield settings
        for each in settings.values():
            yield from _nested(each)


@contextmanager
def small_images_padded(model: nn.Module, images: Sequence[Tensor]) -> Iterator[None]:
    """Makes a preprocessor pad images that are too small for a backbone of nat_mm.

    They are padded on the right and at the bottom, as usual in the toolboxes, which crop the
    padding from the results. Other backbones accept small images or report the problem themselves.

    Args:
        model: A model of mmdet, mmseg or mmpretrain.
        images: Inputs of its preprocessor, each [channels, height, width].
    """
    smallest = min(min(image.shape[-2:]) for image in images)
    if smallest >= SMALLEST_INPUT or not smallest_input(model):
        yield
        return
    preprocessor: Any = model.data_preprocessor
    with ExitStack() as stack:
        # mmseg's preprocessor. That of OneDL's fork also has a pad_size_divisor, but ignores it.
        if hasattr(preprocessor, 'test_cfg'):
            name = 'test_cfg'
            padded: Any = _pad_in_tests(preprocessor.test_cfg or {})
        else:
            name = 'pad_size_divisor'
            padded = math.lcm(preprocessor.pad_size_divisor, SMALLEST_INPUT)
        stack.callback(setattr, preprocessor, name, getattr(preprocessor, name))
        setattr(preprocessor, name, padded)
        yield


def smallest_input(model: nn.Module) -> int:
    """Returns the height and width to which smaller images are padded, or 0 if they are not."""
    is_ours = any(isinstance(module, FreezableBackbone) for module in model.modules())
    return SMALLEST_INPUT if is_ours else 0


def _pad_in_tests(settings: dict) -> dict:
    """Adapts the settings of mmseg's padding in tests to pad to the smallest input or more."""
    if settings.get('size_divisor') is not None:
        return {**settings, 'size_divisor': math.lcm(settings['size_divisor'], SMALLEST_INPUT)}
    height, width = settings.get('size') or (0, 0)
    return {**settings, 'size': (max(height, SMALLEST_INPUT), max(width, SMALLEST_INPUT))}


def retrieves(model: nn.Module) -> bool:
    """Whether the labels that a model predicts are numbers of images instead of classes."""
    return any(kind.__name__ == 'BaseRetriever' for kind in type(model).__mro__)
