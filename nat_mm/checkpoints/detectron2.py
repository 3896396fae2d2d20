"""Renames the weights of the authors' Mask2Former models, which were trained with detectron2.

The heads' parameters have different names than in mmdet and mmseg but correspond one to one:
nothing is split or joined. There are two complications. First, mmdet's heads expect things before
stuff, whereas detectron2 has the classes of ADE20K and Cityscapes in the datasets' own order, so
the rows of the classifier are permuted. Second, the weights alone reveal neither whether the model
is one of mmseg's (semantic segmentation) or mmdet's nor the order of the classes; the numbers of
queries and classes tell the published models apart.
"""

import dataclasses
import re
from collections.abc import Collection, Iterable, Mapping

import torch

from nat_mm.errors import CheckpointError

_HEAD = 'sem_seg_head.'
# Their names below `sem_seg_head.` and ours below the head; * is the index of a layer.
_NAMES = {
    'pixel_decoder.input_proj.*.0.': 'pixel_decoder.input_convs.*.conv.',
    'pixel_decoder.input_proj.*.1.': 'pixel_decoder.input_convs.*.gn.',
    'pixel_decoder.transformer.level_embed': 'pixel_decoder.level_encoding.weight',
    'pixel_decoder.transformer.encoder.layers.*.self_attn.': (
        'pixel_decoder.encoder.layers.*.self_attn.'
    ),
    'pixel_decoder.transformer.encoder.layers.*.linear1.': (
        'pixel_decoder.encoder.layers.*.ffn.layers.0.0.'
    ),
    'pixel_decoder.transformer.encoder.layers.*.linear2.': (
        'pixel_decoder.encoder.layers.*.ffn.layers.1.'
    ),
    'pixel_decoder.transformer.encoder.layers.*.norm1.': 'pixel_decoder.encoder.layers.*.norms.0.',
    'pixel_decoder.transformer.encoder.layers.*.norm2.': 'pixel_decoder.encoder.layers.*.norms.1.',
    'pixel_decoder.adapter_1.norm.': 'pixel_decoder.lateral_convs.0.gn.',
    'pixel_decoder.adapter_1.': 'pixel_decoder.lateral_convs.0.conv.',
    'pixel_decoder.layer_1.norm.': 'pixel_decoder.output_convs.0.gn.',
    'pixel_decoder.layer_1.': 'pixel_decoder.output_convs.0.conv.',
    'pixel_decoder.mask_features.': 'pixel_decoder.mask_feature.',
    'predictor.transformer_cross_attention_layers.*.multihead_attn.': (
        'transformer_decoder.layers.*.cross_attn.attn.'
    ),
    'predictor.transformer_self_attention_layers.*.self_attn.': (
        'transformer_decoder.layers.*.self_attn.attn.'
    ),
    'predictor.transformer_ffn_layers.*.linear1.': 'transformer_decoder.layers.*.ffn.layers.0.0.',
    'predictor.transformer_ffn_layers.*.linear2.': 'transformer_decoder.layers.*.ffn.layers.1.',
    'predictor.transformer_cross_attention_layers.*.norm.': (
        'transformer_decoder.layers.*.norms.0.'
    ),
    'predictor.transformer_self_attention_layers.*.norm.': 'transformer_decoder.layers.*.norms.1.',
    'predictor.transformer_ffn_layers.*.norm.': 'transformer_decoder.layers.*.norms.2.',
    'predictor.decoder_norm.': 'transformer_decoder.post_norm.',
    'predictor.query_feat.': 'query_feat.',
    'predictor.query_embed.': 'query_embed.',
    'predictor.level_embed.': 'level_embed.',
    'predictor.class_embed.': 'cls_embed.',
    # Our indices include the activations.
    'predictor.mask_embed.layers.0.': 'mask_embed.0.',
    'predictor.mask_embed.layers.1.': 'mask_embed.2.',
    'predictor.mask_embed.layers.2.': 'mask_embed.4.',
}
_PATTERNS = [
    (re.compile(re.escape(theirs).replace(r'\*', r'(\d+)')), ours.replace('*', r'\1'))
    for theirs, ours in _NAMES.items()
]
# Parameters that tell the models apart, and their axes. The last class means "no object".
_TELLING = {
    'query_feat.weight': ('queries', 'channels'),
    'class_embed.weight': ('classes + 1', 'channels'),
    'class_embed.bias': ('classes + 1',),
}
# Parameters of the loss and of image normalization, which our models have in their configs.
_NOT_USED = ('criterion.empty_weight', 'pixel_mean', 'pixel_std')


@dataclasses.dataclass(frozen=True)
class _Published:
    """A kind of published model.

    Attributes:
        task: What it was trained on.
        head: Name of the head in the OpenMMLab model.
        stuff: Stuff classes, if they must be moved after the things for mmdet; otherwise empty.
    """

    task: str
    head: str = 'panoptic_head'
    stuff: Collection[int] = ()


_ADE20K_STUFF = (
    *(0, 1, 2, 3, 4, 5, 6, 9, 11, 13, 16, 17, 21, 25, 26, 28, 29, 34, 40, 46, 48, 51, 52, 54, 59),
    *(60, 61, 63, 68, 77, 79, 84, 91, 94, 96, 99, 100, 101, 105, 106, 109, 113, 114, 117, 122),
    *(128, 131, 140, 141, 145),
)
# By numbers of queries and classes. For COCO, the order is the same as mmdet's in both tasks.
_PUBLISHED = {
    (100, 150): _Published('ADE20K semantic', head='decode_head'),
    (100, 19): _Published('Cityscapes semantic', head='decode_head'),
    (200, 80): _Published('COCO instance'),
    (200, 133): _Published('COCO panoptic'),
    (200, 100): _Published('ADE20K instance'),
    (200, 150): _Published('ADE20K panoptic', stuff=_ADE20K_STUFF),
    (200, 8): _Published('Cityscapes instance'),
    (200, 19): _Published('Cityscapes panoptic', stuff=range(11)),
}


def has_detectron2_layout(keys: Iterable[str]) -> bool:
    """Returns whether keys are those of detectron2's Mask2Former."""
    return any(key.startswith(_HEAD) for key in keys)


def from_detectron2(weights: Mapping[str, torch.Tensor], *, source: str) -> dict[str, torch.Tensor]:
    """Renames the weights of a Mask2Former as in mmdet or mmseg.

    Args:
        weights: Weights of a whole model: ``backbone.*`` and ``sem_seg_head.*``.
        source: Name of the file, for errors.

    Returns:
        The weights; those of the classifier may be copies.

    Raises:
        CheckpointError: If there are unknown weights, those that tell the models apart have another
            shape, or the model is not one of the published ones.
    """
    published = _find_published(weights, source)
    renamed = {}
    for key, tensor in weights.items():
        if key in _NOT_USED:
            continue
        if key.startswith('backbone.'):
            renamed[key] = tensor
            continue
        if published.stuff and key.endswith(('.class_embed.weight', '.class_embed.bias')):
            tensor = tensor[_things_first(tensor.shape[0] - 1, published.stuff)]
        renamed[f'{published.head}.{_rename(key, source)}'] = tensor
    return renamed


def _find_published(weights: Mapping[str, torch.Tensor], source: str) -> _Published:
    sizes: dict[str, int] = {}
    for name, axes in _TELLING.items():
        key = f'{_HEAD}predictor.{name}'
        if key not in weights:
            raise CheckpointError(
                f'{source} is not a Mask2Former from detectron2: {key} is missing'
            )
        shape = list(weights[key].shape)
        if len(shape) != len(axes) or shape[0] != sizes.get(axes[0], shape[0]):
            wanted = ', '.join(str(sizes.get(axis, axis)) for axis in axes)
            raise CheckpointError(f'{source}: {key} must have shape [{wanted}], got {shape}')
        sizes.update(zip(axes, shape, strict=True))
    numbers = sizes['queries'], sizes['classes + 1'] - 1
    if numbers not in _PUBLISHED:
        known = ', '.join(
            f'{queries} and {classes} ({published.task})'
            for (queries, classes), published in _PUBLISHED.items()
        )
        raise CheckpointError(
            f'{source} is a Mask2Former from detectron2 with {numbers[0]} queries and {numbers[1]} '
            f'classes, which is none of the published ones; these have {known}'
        )
    return _PUBLISHED[numbers]


def _rename(key: str, source: str) -> str:
    for theirs, ours in _PATTERNS:
        match = theirs.match(key, len(_HEAD)) if key.startswith(_HEAD) else None
        if match:
            return match.expand(ours) + key[match.end() :]
    raise CheckpointError(f"{source} has {key}, which detectron2's Mask2Former does not have")


def _things_first(count: int, stuff: Collection[int]) -> list[int]:
    """Returns the rows of a classifier with ``count`` classes as things, stuff, "no object"."""
    things = [label for label in range(count) if label not in stuff]
    return [*things, *stuff, count]
