"""Converts from and to the layout of Hugging Face's Nat and Dinat (Nat until transformers 4).

In contrast to the authors' layout, query, key and value are separate, the two layer scales are one
parameter, and the output norms of the ``Backbone`` classes number their stages from 1. The keys of
classifiers start with ``nat.`` or ``dinat.``, except for the head's. DiNAT_s has no counterpart.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from nat_mm.errors import CheckpointError

Concatenate = Callable[[list[torch.Tensor]], torch.Tensor]

_PROJECTIONS = ('query', 'key', 'value')
# Our names and theirs, replaced in this order; '^' marks the start of a key.
_NAMES = [
    ('^patch_embed.proj.', '^embeddings.patch_embeddings.projection.'),
    ('^patch_embed.norm.', '^embeddings.norm.'),
    ('^norm.', '^layernorm.'),
    *((f'^norm{stage}.', f'^hidden_states_norms.stage{stage + 1}.') for stage in range(10)),
    ('^head.', '^classifier.'),
    ('^levels.', '^encoder.levels.'),
    ('.blocks.', '.layers.'),
    ('.norm1.', '.layernorm_before.'),
    ('.norm2.', '.layernorm_after.'),
    ('.attn.rpb', '.attention.self.rpb'),
    *((f'.attn.{name}.', f'.attention.self.{name}.') for name in _PROJECTIONS),
    ('.attn.proj.', '.attention.output.dense.'),
    ('.mlp.fc1.', '.intermediate.dense.'),
    ('.mlp.fc2.', '.output.dense.'),
]


def has_huggingface_layout(keys: Iterable[str]) -> bool:
    """Returns whether keys are those of a Hugging Face Nat or Dinat."""
    return any(re.match(r'(?:(?:di)?nat\.)?encoder\.levels\.', key) for key in keys)


def from_huggingface(
    weights: Mapping[str, torch.Tensor], *, concatenate: Concatenate
) -> dict[str, torch.Tensor]:
    """Converts weights of a Hugging Face model to the authors' layout; keeps unknown keys."""
    weights = {_to_ours(key): tensor for key, tensor in weights.items()}
    converted = {}
    for key, tensor in weights.items():
        projection = re.fullmatch(r'(.+\.attn\.)(?:query|key|value)(\.\w+)', key)
        if projection:
            start, end = projection.groups()
            joined = f'{start}qkv{end}'
            if joined not in converted:
                parts = [start + name + end for name in _PROJECTIONS]
                converted[joined] = concatenate(_take(weights, parts, joined))
        elif key.endswith('.layer_scale_parameters'):
            stem = key.removesuffix('layer_scale_parameters')
            for number, scale in enumerate(_split(tensor, 2, key), start=1):
                # [1, C] to [C]
                converted[f'{stem}gamma{number}'] = scale.flatten()
        else:
            converted[key] = tensor
    return converted


def to_huggingface(
    weights: Mapping[str, torch.Tensor], *, model_type: str, source: str
) -> dict[str, torch.Tensor]:
    """Converts weights in the authors' layout to those of a Hugging Face ``nat`` or ``dinat``.

    The result fits the ``ForImageClassification`` class if there is a head, otherwise the
    ``Backbone`` class if there are output norms, otherwise the ``Model`` class.
    """
    if any(re.match(r'layers\.\d+\.attn\.', key) for key in weights):
        raise CheckpointError(f'{source} is an isotropic model, which Hugging Face does not have')
    if any(key.startswith('layers.') for key in weights):
        raise CheckpointError(f'{source} is a DiNAT_s, which Hugging Face does not have')
    split = {}
    for key, tensor in weights.items():
        stem, _, name = key.rpartition('.')
        if '.attn.qkv.' in key:
            for projection, part in zip(_PROJECTIONS, _split(tensor, 3, key), strict=True):
                split[key.replace('qkv', projection)] = part
        elif name in ('gamma1', 'gamma2'):
            joined = f'{stem}.layer_scale_parameters'
            scales = _take(weights, [f'{stem}.gamma1', f'{stem}.gamma2'], joined)
            split[joined] = torch.stack(scales)
        else:
            split[key] = tensor
    prefix = f'{model_type}.' if 'head.weight' in weights else ''
    return {
        ('' if key.startswith('head.') else prefix) + _rename(key, _NAMES): tensor
        for key, tensor in split.items()
    }


def _to_ours(key: str) -> str:
    names = [(theirs, ours) for ours, theirs in _NAMES]
    return _rename(re.sub(r'^(?:di)?nat\.', '', key), names)


def _rename(key: str, names: Iterable[tuple[str, str]]) -> str:
    key = f'^{key}'
    for old, new in names:
        key = key.replace(old, new)
    return key.removeprefix('^')


def _take(
    weights: Mapping[str, torch.Tensor], keys: Sequence[str], joined: str
) -> list[torch.Tensor]:
    """Returns the parts of one parameter, after checking that they match."""
    missing = [key for key in keys if key not in weights]
    if missing:
        raise CheckpointError(f'incomplete weights: {missing[0]} is missing')
    parts = [weights[key] for key in keys]
    if len({(part.shape, part.dtype) for part in parts}) > 1 or not parts[0].ndim:
        listed = ', '.join(f'{part.dtype} {list(part.shape)}' for part in parts)
        raise CheckpointError(f'the parts of {joined} must have one shape and dtype, got {listed}')
    return parts


def _split(tensor: torch.Tensor, count: int, key: str) -> tuple[torch.Tensor, ...]:
    """Splits a tensor along its first axis."""
    if not tensor.ndim or tensor.shape[0] % count:
        raise CheckpointError(
            f'{key} must have {count} equal parts, got shape {list(tensor.shape)}'
        )
    return tensor.chunk(count)
