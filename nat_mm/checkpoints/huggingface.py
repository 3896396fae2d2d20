"""The layout of Hugging Face's Nat and Dinat models (transformers, up to 4.46 both in its sources).

Compared with the authors', query, key and value are separate, both layer scales are one parameter,
and the output norms of the ``Backbone`` classes count their stages from 1. The keys of classifiers
begin with ``nat.`` or ``dinat.``, except for the head. DiNAT_s has no counterpart.
"""

import re
from collections.abc import Iterable

from nat_mm.checkpoints.weights import (
    LazyTensor,
    LazyWeights,
    cut_rows,
    join_rows,
    rename,
)

_MODEL_NAMES = {
    'patch_embed.proj.': 'embeddings.patch_embeddings.projection.',
    'patch_embed.norm.': 'embeddings.norm.',
    'norm.': 'layernorm.',
    'head.': 'classifier.',
}
_LAYER_NAMES = {
    'norm1.': 'layernorm_before.',
    'norm2.': 'layernorm_after.',
    'attn.rpb': 'attention.self.rpb',
    'attn.proj.': 'attention.output.dense.',
    'mlp.fc1.': 'intermediate.dense.',
    'mlp.fc2.': 'output.dense.',
}
_PROJECTIONS = ('query', 'key', 'value')
_SCALES = ('gamma1', 'gamma2')


def has_huggingface_layout(keys: Iterable[str]) -> bool:
    """Tells whether keys are those of a Hugging Face Nat or Dinat model."""
    return any(re.match(r'(?:(?:di)?nat\.)?encoder\.levels\.', key) for key in keys)


def from_huggingface(weights: LazyWeights) -> dict[str, LazyTensor]:
    """Converts weights of a Hugging Face model to the authors' layout.

    Args:
        weights: Weights of a ``NatModel``, ``NatBackbone``, ``NatForImageClassification`` or of
            their Dinat counterparts.

    Returns:
        The weights; a key that these models do not have stays as it is.

    Raises:
        ValueError: If query, key and value are incomplete or differ in shape.
    """
    weights = {re.sub(r'^(?:di)?nat\.', '', key): tensor for key, tensor in weights.items()}
    names = {theirs: ours for ours, theirs in _MODEL_NAMES.items()}
    layer_names = {theirs: ours for ours, theirs in _LAYER_NAMES.items()}
    converted = {}
    for key, tensor in weights.items():
        layer = re.fullmatch(r'encoder\.levels\.(\d+)\.layers\.(\d+)\.(.+)', key)
        if not layer:
            key = key.removeprefix('encoder.')
            output = re.fullmatch(r'hidden_states_norms\.stage([1-9]\d*)\.(.+)', key)
            converted[f'norm{int(output[1]) - 1}.{output[2]}' if output else rename(key, names)] = (
                tensor
            )
            continue
        stem = f'levels.{layer[1]}.blocks.{layer[2]}.'
        projection = re.fullmatch(r'attention\.self\.(query|key|value)\.(\w+)', layer[3])
        if projection:
            joined = f'{stem}attn.qkv.{projection[2]}'
            if joined not in converted:
                parts = [key.replace(f'.{projection[1]}.', f'.{name}.') for name in _PROJECTIONS]
                converted[joined] = join_rows(_take(weights, parts), name=joined)
        elif layer[3] == 'layer_scale_parameters':
            scales = cut_rows(tensor, len(_SCALES), name=key)
            for name, scale in zip(_SCALES, scales, strict=True):
                # [1, C] to [C]
                converted[stem + name] = LazyTensor((scale.whole().flatten(),))
        else:
            converted[stem + rename(layer[3], layer_names)] = tensor
    return converted


def to_huggingface(weights: LazyWeights, *, model_type: str, source: str) -> dict[str, LazyTensor]:
    """Converts weights in the authors' layout to those of a Hugging Face model.

    Args:
        weights: Weights of a NAT or DiNAT, with checked keys.
        model_type: ``nat`` or ``dinat``, with which the keys of a classifier begin.
        source: Name of the file, for errors.

    Returns:
        Weights of the ``ForImageClassification`` class if there is a head, else of the ``Backbone``
        class if there are output norms, else of the ``Model`` class.

    Raises:
        ValueError: If the weights are those of a DiNAT_s, or a layer scale lacks its other half.
    """
    if any(key.startswith('layers.') for key in weights):
        raise ValueError(f'{source} is a DiNAT_s, which Hugging Face does not have')
    prefix = f'{model_type}.' if 'head.weight' in weights else ''
    converted = {}
    for key, tensor in weights.items():
        layer = re.fullmatch(r'levels\.(\d+)\.blocks\.(\d+)\.(.+)', key)
        if not layer:
            output = re.fullmatch(r'norm(\d+)\.(.+)', key)
            if output:
                name = f'hidden_states_norms.stage{int(output[1]) + 1}.{output[2]}'
            elif key.startswith('levels.'):
                name = f'encoder.{key}'
            else:
                name = rename(key, _MODEL_NAMES)
            converted[name if name.startswith('classifier.') else prefix + name] = tensor
            continue
        stem = f'{prefix}encoder.levels.{layer[1]}.layers.{layer[2]}.'
        if layer[3].startswith('attn.qkv.'):
            kind = layer[3].removeprefix('attn.qkv.')
            parts = cut_rows(tensor, len(_PROJECTIONS), name=key)
            for name, part in zip(_PROJECTIONS, parts, strict=True):
                converted[f'{stem}attention.self.{name}.{kind}'] = part
        elif layer[3] in _SCALES:
            halves = _take(weights, [key.replace(layer[3], name) for name in _SCALES])
            # [C] to [1, C]
            rows = [LazyTensor((half.whole()[None],)) for half in halves]
            converted[f'{stem}layer_scale_parameters'] = join_rows(rows, name=key)
        else:
            converted[stem + rename(layer[3], _LAYER_NAMES)] = tensor
    return converted


def _take(weights: LazyWeights, keys: Iterable[str]) -> list[LazyTensor]:
    try:
        return [weights[key] for key in keys]
    except KeyError as error:
        raise ValueError(f'incomplete weights: {error.args[0]} is missing') from None
