"""Recognizes the layout of a checkpoint by its keys and converts between layouts.

``authors``
    The authors' ImageNet checkpoints. Our backbones have the same keys, with two exceptions: a
    classifier ends with ``norm`` and ``head``, whereas a backbone has a ``normI`` for each output;
    and ViT-rpb stores an index into the bias table in each layer, which ours computes.
``huggingface``
    Nat and Dinat of transformers; see :mod:`nat_mm.checkpoints.huggingface`.
``model``
    A whole OpenMMLab model: ``backbone.*`` along with ``neck.*``, ``decode_head.*``, etc. Detectors
    and segmentors have the same keys in mmdet 2.19 and mmseg 0.20, which the authors used for
    training, as in mmdet 3.3 and mmseg 1.2. Their classifiers become mmpretrain's
    ``ImageClassifier``: ``norm.*`` is ``backbone.norm3.*`` there, ``head.*`` is ``head.fc.*``.
``detectron2``
    The authors' Mask2Former models; see :mod:`nat_mm.checkpoints.detectron2`.
"""

import re
from collections.abc import Iterable, Mapping

import torch

from nat_mm.checkpoints.detectron2 import from_detectron2, has_detectron2_layout
from nat_mm.checkpoints.huggingface import (
    Concatenate,
    from_huggingface,
    has_huggingface_layout,
    to_huggingface,
)
from nat_mm.errors import CheckpointError, shorten

FOREIGN = ('authors', 'huggingface', 'detectron2')
"""Layouts that a whole OpenMMLab model cannot load without conversion."""
TARGETS = ('model', 'backbone', 'authors', 'huggingface-nat', 'huggingface-dinat')

_KNOWN_KEY = re.compile(
    r"""
    (?: patch_embed\.(?: proj (?:\.[01])? | norm ) | norm\d* | head ) \.(?:weight|bias)
    | (?:levels\.\d+\.blocks|layers\.\d+\.blocks|layers)\.\d+\. (?:
        (?: norm[12] | attn\.(?:qkv|proj) | mlp\.fc[12] ) \.(?:weight|bias)
        | attn\.(?:rpb|relative_position_index) | gamma[12]
    )
    | (?:levels|layers)\.\d+\.downsample\. (?: reduction\.weight | norm\.(?:weight|bias) )
    """,
    re.VERBOSE,
)

Weights = dict[str, torch.Tensor]


def find_layout(keys: Iterable[str]) -> str | None:
    """Returns the name of the layout that the keys belong to, or None if there is none."""
    keys = list(keys)
    if has_detectron2_layout(keys):
        return 'detectron2'
    if any(key.startswith('backbone.') for key in keys):
        return 'model'
    if has_huggingface_layout(keys):
        return 'huggingface'
    return 'authors' if any(key.startswith('patch_embed.') for key in keys) else None


def convert_weights(
    weights: Mapping[str, torch.Tensor],
    *,
    to: str,
    source: str = 'the checkpoint',
    concatenate: Concatenate = torch.cat,
) -> Weights:
    """Converts weights from any known layout to another.

    Args:
        weights: Weights of a NAT, DiNAT or DiNAT_s in the authors' layout or Hugging Face's, or of
            an OpenMMLab model or detectron2 Mask2Former whose ``backbone`` is one of these.
        to: Layout of the result:

            - ``model``: a whole OpenMMLab model. Detectors and segmentors keep their keys, except
              those from detectron2; a classifier becomes mmpretrain's ``ImageClassifier``.
            - ``backbone``: the backbone for a new detector or segmentor, without a prefix and
              without a classifier's last norm and head.
            - ``authors``: as published by the authors.
            - ``huggingface-nat``, ``huggingface-dinat``: Hugging Face's model of that type; of
              detectors and segmentors, which Hugging Face lacks, only the backbone.
        source: Name of the file, for errors.
        concatenate: Joins tensors along their first axis.

    Returns:
        The weights. Those that need no joining share memory with ``weights``.

    Raises:
        ValueError: If ``to`` is unknown, the weights have an unknown layout or another
            architecture, or the target layout does not support them.
    """
    if to not in TARGETS:
        raise ValueError(f'to must be one of {", ".join(TARGETS)}, got {to!r}')
    layout, weights = find_layout(weights), dict(weights)
    if layout is None:
        raise CheckpointError(
            f'{source} is not a checkpoint of a NAT, DiNAT or DiNAT_s from the authors, '
            f'Hugging Face or OpenMMLab: it has {shorten(list(weights), 3)}'
        )
    whole, weights = weights, _to_authors(weights, concatenate=concatenate)
    _check_architecture(weights, source)
    if layout == 'detectron2' and to == 'model':
        return from_detectron2(whole, source=source)
    if to in ('model', 'authors') and (
        layout == 'detectron2' or (layout == 'model' and not _is_classifier(whole))
    ):
        return whole
    if to == 'authors':
        return weights
    if to == 'model':
        head = {f'head.fc.{key}': tensor for key, tensor in _below(weights, 'head.').items()}
        backbone = _without_classifier(weights, keep_norm=True)
        return {f'backbone.{key}': tensor for key, tensor in backbone.items()} | head
    if to == 'backbone':
        return _without_classifier(weights, keep_norm=False)
    return to_huggingface(weights, model_type=to.removeprefix('huggingface-'), source=source)


def take_backbone(weights: Mapping[str, torch.Tensor], *, keep_norm: bool) -> Weights:
    """Extracts a backbone's weights from any layout, including keys of other architectures."""
    return _without_classifier(_to_authors(dict(weights)), keep_norm=keep_norm)


def _without_classifier(weights: Weights, *, keep_norm: bool) -> Weights:
    """Drops head and indices, and the last norm unless it is kept as the last output's norm."""
    if keep_norm:
        last_norm = f'norm{last_stage(weights)}.'
        weights = {re.sub(r'^norm\.', last_norm, key): tensor for key, tensor in weights.items()}
    return {
        key: weights[key]
        for key in weights
        if not key.startswith(('norm.', 'head.')) and not key.endswith('.relative_position_index')
    }


def is_backbone(keys: Iterable[str]) -> bool:
    """Returns whether keys are already those of a backbone and need no renaming."""
    keys = list(keys)
    has_more = any(
        key.startswith(('norm.', 'head.')) or key.endswith('.relative_position_index')
        for key in keys
    )
    return find_layout(keys) in ('authors', None) and not has_more


def last_stage(keys: Iterable[str]) -> int:
    """Returns the index of the last stage of a backbone with these keys."""
    stages = [re.match(r'(?:levels|layers)\.(\d+)\.', key) for key in keys]
    return max((int(stage[1]) for stage in stages if stage), default=0)


def output_norms(keys: Iterable[str]) -> set[int]:
    """Returns the indices of the stages that have an output norm."""
    return {int(norm[1]) for norm in (re.match(r'norm(\d+)\.', key) for key in keys) if norm}


def _to_authors(weights: Weights, concatenate: Concatenate = torch.cat) -> Weights:
    """Converts to the authors' layout; of detectors and segmentors, keeps only the backbone."""
    layout = find_layout(weights)
    if layout == 'huggingface':
        return from_huggingface(weights, concatenate=concatenate)
    if layout not in ('model', 'detectron2'):
        return weights
    backbone = _below(weights, 'backbone.')
    if layout == 'detectron2' or not _is_classifier(weights):
        return backbone
    last_norm = rf'^norm{last_stage(backbone)}\.'
    backbone = {re.sub(last_norm, 'norm.', key): tensor for key, tensor in backbone.items()}
    head = _below(weights, 'head.fc.')
    return backbone | {f'head.{key}': tensor for key, tensor in head.items()}


def _is_classifier(weights: Weights) -> bool:
    """Returns whether a model is an ``ImageClassifier``, with or without its head."""
    backbone = _below(weights, 'backbone.')
    return output_norms(backbone) == {last_stage(backbone)} and all(
        key.startswith(('backbone.', 'head.fc.')) for key in weights
    )


def _below(weights: Weights, prefix: str) -> Weights:
    """Returns the weights whose keys start with a prefix, with the prefix removed."""
    return {key.removeprefix(prefix): weights[key] for key in weights if key.startswith(prefix)}


def _check_architecture(keys: Iterable[str], source: str) -> None:
    keys = list(keys)
    foreign = [key for key in keys if not _KNOWN_KEY.fullmatch(key)]
    if foreign:
        shown = shorten(foreign, 3)
        raise CheckpointError(
            f'{source} has another architecture: NAT, DiNAT and DiNAT_s do not have {shown}'
        )
    if not any(key.endswith('.attn.rpb') for key in keys):
        raise CheckpointError(f'{source} has no layers of a NAT, DiNAT or DiNAT_s')
