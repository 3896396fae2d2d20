"""Runs Hugging Face's Dinat on our operator: ``import nat_mm.integrations.transformers``.

transformers calls functions that NATTEN 0.20 removed, and since 5.0 with heads and rows swapped
(https://github.com/SHI-Labs/NATTEN/issues/271). After this import, DinatModel, DinatBackbone and
DinatForImageClassification, as well as Mask2Former and OneFormer with a Dinat backbone, predict and
train without natten, including models created earlier. Parameters keep their names.

Attention is computed by :func:`nat_mm.ops.neighborhood_attention_2d`. If its weights are requested
(``output_attentions=True``) or subject to dropout in training (``attention_probs_dropout_prob``),
it is computed in two halves, which is slower.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import Any
from unittest.mock import patch

from torch import Tensor

from nat_mm.ops import neighborhood_attention_2d
from nat_mm.ops.unfused import neighbor_scores, neighbor_sums

try:
    import transformers.utils
except ModuleNotFoundError as error:
    if error.name != 'transformers':
        raise
    raise ModuleNotFoundError(
        'nat_mm.integrations.transformers needs transformers; '
        "install it with pip install 'nat_mm[transformers]'",
        name='transformers',
    ) from error


def attend(
    self: Any, hidden_states: Tensor, output_attentions: bool | None = False
) -> tuple[Tensor, ...]:
    """Replaces ``NeighborhoodAttention.forward`` of Hugging Face's Dinat.

    Args:
        self: The module.
        hidden_states: [B, H, W, C]; DinatLayer pads it to a whole window.
        output_attentions: Whether to also return the attention weights.

    Returns:
        The attended values [B, H, W, C] and, if requested, the weights
        [B, heads, H, W, kernel_size ** 2], with the neighbors row by row.
    """
    query, key, value = (
        project(hidden_states).unflatten(-1, (self.num_attention_heads, self.attention_head_size))
        for project in (self.query, self.key, self.value)
    )
    drops_weights = self.training and self.dropout.p > 0
    if not (output_attentions or drops_weights):
        attended = neighborhood_attention_2d(
            query,
            key,
            value,
            kernel_size=self.kernel_size,
            dilation=self.dilation,
            bias=self.rpb,
        )
        return (attended.flatten(3),)
    query, key, value = (tensor.movedim(3, 1) for tensor in (query, key, value))
    window = (self.kernel_size,) * 2, (self.dilation,) * 2
    query = query * self.attention_head_size**-0.5
    weights = neighbor_scores(query, key, self.rpb, *window).softmax(dim=-1)
    weights = self.dropout(weights)
    attended = neighbor_sums(weights, value, *window).movedim(1, 3).flatten(3)
    return (attended, weights) if output_attentions else (attended,)


def _import_dinat() -> ModuleType:
    """Imports the module of Hugging Face's Dinat as if NATTEN were not installed.

    With NATTEN 0.20 or later, it would fail to import names that were removed.
    """
    with patch.object(transformers.utils, 'is_natten_available', lambda: False):
        return importlib.import_module('transformers.models.dinat.modeling_dinat')


def _use_our_operator() -> None:
    dinat: Any = _import_dinat()
    if dinat.NeighborhoodAttention.forward.__module__ == __name__:
        return
    require = dinat.requires_backends

    def require_others(model: Any, backends: Iterable[str]) -> None:
        require(model, [name for name in backends if name != 'natten'])

    dinat.NeighborhoodAttention.forward = attend
    dinat.requires_backends = require_others


_use_our_operator()
