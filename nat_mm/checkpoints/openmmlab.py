"""The layout of whole OpenMMLab models: ``backbone.*`` beside ``neck.*``, ``decode_head.*``, etc.

Detectors and segmenters have the same keys and shapes in mmdet 2.19 and mmseg 0.20, with which the
authors trained theirs, as in mmdet 3.3 and mmseg 1.2: buffers that newer versions added (mean and
deviation of the image normalization) are not saved. mmpretrain's ``ImageClassifier`` is the
counterpart of the authors' classifiers.
"""

import re
from collections.abc import Iterable

from nat_mm.checkpoints.authors import last_stage
from nat_mm.checkpoints.weights import LazyTensor, LazyWeights, rename


def has_model_layout(keys: Iterable[str]) -> bool:
    """Tells whether keys are those of a model that has a backbone."""
    return any(key.startswith('backbone.') for key in keys)


def is_classifier(keys: Iterable[str]) -> bool:
    """Tells whether keys of a model are those of an ``ImageClassifier``, with or without its head.

    Its backbone gives the last stage only, so ``norm3`` is the only output norm.
    """
    keys = list(keys)
    stage_keys = [key.removeprefix('backbone.') for key in keys if key.startswith('backbone.')]
    norms = {key.partition('.')[0] for key in stage_keys if re.match(r'norm\d+\.', key)}
    others = [key for key in keys if not key.startswith('backbone.')]
    return norms == {f'norm{last_stage(stage_keys)}'} and all(
        key.startswith('head.fc.') for key in others
    )


def from_classifier(weights: LazyWeights) -> dict[str, LazyTensor]:
    """Renames the weights of an ``ImageClassifier`` to the authors' layout."""
    last_norm = f'norm{last_stage(backbone_of(weights))}.'
    names = {'head.fc.': 'head.', f'backbone.{last_norm}': 'norm.', 'backbone.': ''}
    return {rename(key, names): tensor for key, tensor in weights.items()}


def to_model(weights: LazyWeights) -> dict[str, LazyTensor]:
    """Renames weights in the authors' layout to those of an OpenMMLab model.

    A classifier becomes an ``ImageClassifier``: ``norm.*`` is its ``backbone.norm3.*``, ``head.*``
    its ``head.fc.*``.
    """
    names = {'head.': 'head.fc.', '': 'backbone.'}
    return {rename(key, names): tensor for key, tensor in name_last_norm(weights).items()}


def name_last_norm(weights: LazyWeights) -> dict[str, LazyTensor]:
    """Renames a classifier's ``norm`` to that of a backbone's last output, such as ``norm3``."""
    names = {'norm.': f'norm{last_stage(weights)}.'}
    return {rename(key, names): tensor for key, tensor in weights.items()}


def backbone_of(weights: LazyWeights, prefix: str = 'backbone.') -> dict[str, LazyTensor]:
    """Keeps the weights under a prefix, without it."""
    return {
        key.removeprefix(prefix): tensor
        for key, tensor in weights.items()
        if key.startswith(prefix)
    }
