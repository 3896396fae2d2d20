"""Computes which pixels reach a token, and how strongly, through the layers of a backbone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nat_mm.analysis.reach import axis_reach
from nat_mm.analysis.windows import (
    Layer,
    axis_tokens,
    choose_layer,
    find_backbone,
    map_shape,
    record_queries_and_keys,
    token_under,
    weights_of,
)
from nat_mm.backbones.base import NeighborhoodBackbone
from nat_mm.layers import ConvDownsampler, ConvTokenizer, PatchMerging, PatchTokenizer
from nat_mm.ops.validation import check_int

# Kernel size, stride and padding of each convolution in the tokenizers and downsamplers.
_CONVOLUTIONS = {
    ConvTokenizer: ((3, 2, 1), (3, 2, 1)),
    ConvDownsampler: ((3, 2, 1),),
    PatchTokenizer: ((4, 4, 0),),
    PatchMerging: ((2, 2, 0),),
}


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels of an image on which the output of a layer at one token depends.

    The pixels are the product of ``rows`` and ``columns``: a window is the product of a set of rows
    and a set of columns, and so is the union of windows over such a product.
    """

    layer: Layer
    rows: Tensor
    """[H], bool."""
    columns: Tensor
    """[W], bool."""

    @property
    def pixels(self) -> Tensor:
        """[H, W], bool: True at the pixels in the field."""
        return self.rows[:, None] & self.columns


def layers_until(layer: Layer, backbone: NeighborhoodBackbone) -> list[Layer]:
    """Lists the layers of a backbone in the order in which they run, up to the given one."""
    return [
        Layer(stage, block)
        for stage in range(layer.stage + 1)
        for block in range(len(backbone.stages[stage].blocks))
        if (stage, block) <= layer
    ]


def receptive_fields(
    backbone: NeighborhoodBackbone,
    image: Tensor,
    *,
    point: tuple[float, float],
    stage: int = -1,
    block: int = -1,
) -> list[ReceptiveField]:
    """Composes windows, downsamplers and tokenizer into the receptive fields of a token.

    They depend only on shapes, not on the weights.

    Args:
        backbone: A NAT, DiNAT or DiNAT_s with any attention pattern.
        image: Input of the backbone, [1, in_channels, H, W]; only its shape matters.
        point: (x, y) in pixels of ``image``; selects the token in whose cell it lies in each stage.
        stage: Last stage, from 0; negative numbers count from the last.
        block: Last layer in that stage, from 0; negative numbers count from the last.

    Returns:
        The receptive field after each layer, from the first layer to the chosen one.

    Raises:
        ValueError: There is no such layer, or the point is outside the image.
    """
    layers = layers_until(choose_layer(backbone, stage=stage, block=block), backbone)
    fields = []
    for number, layer in enumerate(layers, start=1):
        rows, columns = (
            _axis_field(backbone, layers[:number], token, length)
            for token, length in zip(
                token_under(image, point, layer.stage), image.shape[2:], strict=True
            )
        )
        fields.append(ReceptiveField(layer, rows, columns))
    return fields


def attention_rollouts(
    backbone: NeighborhoodBackbone,
    image: Tensor,
    *,
    point: tuple[float, float],
    stage: int = -1,
    block: int = -1,
    last: int | None = None,
) -> list[tuple[Layer, Tensor]]:
    """Computes how strongly each pixel contributes to a token, by attention rollout.

    Rollout (arXiv 2005.00928) assumes that half of a layer's output comes from the token itself and
    half from the tokens that it attends to, by the mean weights over the heads. The downsamplers
    and the tokenizer are assumed to weight a token's whole cell equally: 2 x 2 tokens and 4 x 4
    pixels. The share of the zero padding of a map smaller than the window is left out.

    Args:
        backbone: A NAT, DiNAT or DiNAT_s, with any backend; it runs once, in eval mode.
        image: Input of the backbone, [1, in_channels, H, W], normalized.
        point: (x, y) in pixels of ``image``; selects the token in whose cell it lies in each stage.
        stage: Last stage, from 0; negative numbers count from the last.
        block: Last layer in that stage, from 0; negative numbers count from the last.
        last: Number of layers to return, at least 1; None for all.

    Returns:
        For each of the ``last`` layers up to the chosen one: the layer and its shares, [H, W],
        float32, which sum to 1 unless some are left out.

    Raises:
        TypeError: ``last`` is not an int.
        ValueError: There is no such layer, ``last`` is less than 1, or the point is outside the
            image.
    """
    find_backbone(backbone)
    if last is not None:
        check_int('last', last, minimum=1)
    layers = layers_until(choose_layer(backbone, stage=stage, block=block), backbone)
    recorded = record_queries_and_keys(backbone, image, layers)
    weights = {layer: _mean_weights(backbone, layer, *recorded.pop(layer)) for layer in layers}
    rollouts = []
    for number in range(len(layers))[-(last or 0) :]:
        shares = torch.zeros(map_shape(image, layers[number].stage))
        shares[token_under(image, point, layers[number].stage)] = 1
        for layer in reversed(layers[: number + 1]):
            shares = (shares + _attend_back(shares, *weights[layer])) / 2
            if layer.block == 0:
                finer = map_shape(image, layer.stage - 1) if layer.stage else image.shape[2:]
                shares = _spread_over_cells(shares, finer)
        rollouts.append((layers[number], shares))
    return rollouts


def _axis_field(
    backbone: NeighborhoodBackbone, layers: Sequence[Layer], token: int, length: int
) -> Tensor:
    """Which pixels on an axis reach a token of the last layer's output: [length], bool."""
    seen = torch.zeros(axis_tokens(length, layers[-1].stage), dtype=torch.bool)
    seen[token] = True
    for layer in reversed(layers):
        attention = backbone.stages[layer.stage].blocks[layer.block].attn
        seen = axis_reach(attention, len(seen))[seen].any(dim=0)
        if layer.block == 0:
            seen = _under_kernels(backbone, layer.stage, seen, length)
    return seen


def _under_kernels(backbone: NeighborhoodBackbone, stage: int, seen: Tensor, length: int) -> Tensor:
    """Finds what the downsampler before a stage, or the tokenizer, sees along one axis.

    Args:
        backbone: The backbone.
        stage: The stage; the tokenizer precedes stage 0.
        seen: Which of the stage's tokens on the axis count, bool.
        length: Pixels of the image on the axis.

    Returns:
        Which tokens of the previous stage (for stage 0: which pixels) reach one of them, bool.
    """
    module = backbone.stages[stage - 1].downsample if stage else backbone.patch_embed
    inputs = axis_tokens(length, stage - 1) if stage else length
    convolutions = _CONVOLUTIONS[type(module)]
    for index, (size, stride, padding) in reversed(list(enumerate(convolutions))):
        below = inputs
        for _, previous_stride, _ in convolutions[:index]:
            below = -(-below // previous_stride)
        reached = torch.zeros(padding + below + size, dtype=torch.bool)
        starts = seen.nonzero() * stride  # counted from the start of the padding
        reached[starts + torch.arange(size)] = True
        seen = reached[padding : padding + below]
    return seen


def _spread_over_cells(shares: Tensor, finer: tuple[int, int]) -> Tensor:
    """Divides the share of each token evenly among the tokens of a finer map in its cell."""
    for axis, length in enumerate(finer):
        stride = -(-length // shares.shape[axis])
        owner = torch.arange(length) // stride
        parts = torch.bincount(owner, minlength=shares.shape[axis])
        shares = (shares.movedim(axis, -1) / parts)[..., owner].movedim(-1, axis)
    return shares


def _mean_weights(
    backbone: NeighborhoodBackbone, layer: Layer, query: Tensor, key: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns mean weights over the heads and flat neighbor indices, both [H', W', k * k]."""
    attention = backbone.stages[layer.stage].blocks[layer.block].attn
    weights, neighbors = weights_of(attention, query, key)
    numbers = neighbors[..., 0] * query.shape[2] + neighbors[..., 1]
    return weights[0].mean(dim=2).cpu(), numbers.cpu()


def _attend_back(shares: Tensor, weights: Tensor, numbers: Tensor) -> Tensor:
    """Passes the shares of tokens, [H, W], on to the tokens that they attend to."""
    height, width = shares.shape
    padded_height, padded_width = weights.shape[:2]
    own = weights[:height, :width] * shares[..., None]
    handed = torch.zeros(padded_height * padded_width)
    handed.scatter_add_(0, numbers[:height, :width].flatten(), own.flatten())
    return handed.view(padded_height, padded_width)[:height, :width]
