"""Finds what the token under a point of an image attends to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nat_mm.backbones.base import NeighborhoodBackbone
from nat_mm.layers import NATLayer, NeighborhoodAttention2D
from nat_mm.ops import neighborhood_attention_weights

TOKEN_STRIDE = 4
"""Image pixels per token of the first stage, on each axis; doubles with every later stage."""


class Layer(NamedTuple):
    """Position of a layer in a backbone, counted from 0 as in the names of its parameters."""

    stage: int
    block: int


@dataclass(frozen=True)
class AttentionWindow:
    """What one token attends to.

    Boxes are (left, top, right, bottom) in pixels of the backbone's input image. The box of the
    token in row i and column j is the cell ``[j * stride, (j + 1) * stride)`` by
    ``[i * stride, (i + 1) * stride)``, as in detectors and segmentors. Cells of the last row and
    column may extend beyond the image.
    """

    layer: Layer
    stride: int
    """Image pixels per token."""
    token: tuple[int, int]
    """(row, column) of the token that attends."""
    neighbors: Tensor
    """[k * k, 2], int64: (row, column) of each of its neighbors, row by row."""
    weights: Tensor
    """[k * k], float32: the weight of each neighbor; they sum to 1."""
    on_map: Tensor
    """[k * k], bool: False for neighbors in the zero padding of a map smaller than the window."""

    @property
    def box(self) -> Tensor:
        """[4], int64: the box of the token that attends."""
        return self._boxes(torch.tensor([self.token]))[0]

    @property
    def boxes(self) -> Tensor:
        """[k * k, 4], int64: the boxes of its neighbors."""
        return self._boxes(self.neighbors)

    def _boxes(self, tokens: Tensor) -> Tensor:
        corners = tokens.flip(-1) * self.stride
        return torch.cat((corners, corners + self.stride), dim=-1)


def find_backbone(model: nn.Module) -> NeighborhoodBackbone:
    """Finds the NAT, DiNAT or DiNAT_s in a detector, segmentor or classifier.

    Args:
        model: The model, or the backbone itself.

    Returns:
        The first such backbone.

    Raises:
        ValueError: There is none, or its attention pattern is not ``'neighborhood'``.
    """
    for module in model.modules():
        if isinstance(module, NeighborhoodBackbone):
            _check_pattern(module)
            return module
    backbone = getattr(model, 'backbone', model)
    raise ValueError(
        f'the backbone must be NAT, DiNAT or DiNAT_s, the model has {type(backbone).__name__}'
    )


def _check_pattern(backbone: NeighborhoodBackbone) -> None:
    for module in backbone.modules():
        if isinstance(module, NATLayer) and type(module.attn) is not NeighborhoodAttention2D:
            raise ValueError(
                f"the backbone must have attention='neighborhood', it has "
                f'{type(module.attn).__name__}'
            )


def choose_layer(backbone: NeighborhoodBackbone, *, stage: int = -1, block: int = -1) -> Layer:
    """Resolves negative indices of a stage and a layer.

    Args:
        backbone: The backbone.
        stage: Stage, from 0; negative numbers count from the last one that is run.
        block: Layer of that stage, from 0; negative numbers count from the last.

    Returns:
        The layer, with non-negative indices.

    Raises:
        ValueError: There is no such layer, or the stage is not run.
    """
    stages = backbone.stages[: backbone.out_indices[-1] + 1]
    if not -len(stages) <= stage < len(stages):
        raise ValueError(f'stage must be from 0 to {len(stages) - 1}, got {stage}')
    stage %= len(stages)
    blocks = stages[stage].blocks
    if not -len(blocks) <= block < len(blocks):
        raise ValueError(f'block of stage {stage} must be from 0 to {len(blocks) - 1}, got {block}')
    return Layer(stage, block % len(blocks))


def default_stage(backbone: NeighborhoodBackbone, image: Tensor, *, block: int) -> int:
    """Finds the last stage whose windows span at most half of the image on both axes.

    Args:
        backbone: The backbone.
        image: Input of the backbone, [1, in_channels, H, W]; only its shape matters.
        block: The layer of each stage whose window counts; the last one in stages with fewer.

    Returns:
        The stage, from 0; the first stage if there is no such stage.
    """
    found = 0
    for stage, layers in enumerate(backbone.stages[: backbone.out_indices[-1] + 1]):
        has_block = -len(layers.blocks) <= block < len(layers.blocks)
        attention = layers.blocks[block if has_block else -1].attn
        if 2 * attention.kernel_size * attention.dilation <= min(map_shape(image, stage)):
            found = stage
    return found


def attention_windows(
    backbone: NeighborhoodBackbone,
    image: Tensor,
    *,
    points: Sequence[tuple[float, float]],
    stage: int = -1,
    block: int = -1,
    head: int | None = None,
) -> list[AttentionWindow]:
    """Returns the windows and attention weights of the tokens under points of an image.

    Args:
        backbone: A NAT, DiNAT or DiNAT_s, with any backend; it runs once, in eval mode.
        image: Input of the backbone, [1, in_channels, H, W], normalized.
        points: (x, y) of each point in pixels of ``image``, 0 <= x < W and 0 <= y < H.
        stage: Stage, from 0; negative numbers count from the last.
        block: Layer of that stage, from 0; negative numbers count from the last.
        head: Attention head, from 0; None for the mean over all.

    Returns:
        For each point, the window of the token in whose cell it lies.

    Raises:
        ValueError: There is no such layer or head, a point is outside the image, or the image has
            the wrong shape.
    """
    _check_pattern(backbone)
    layer = choose_layer(backbone, stage=stage, block=block)
    attention = backbone.stages[layer.stage].blocks[layer.block].attn
    if head is not None and not 0 <= head < attention.num_heads:
        raise ValueError(
            f'head of stage {layer.stage} must be from 0 to {attention.num_heads - 1}, got {head}'
        )
    tokens = [token_under(image, point, layer.stage) for point in points]
    query, key = record_queries_and_keys(backbone, image, [layer])[layer]
    weights, neighbors = weights_of(attention, query, key, positions=tokens)
    # [N, heads, k * k]
    weights = weights[0].cpu()
    weights = weights.mean(dim=1) if head is None else weights[:, head]
    neighbors = neighbors.cpu()
    on_map = (neighbors < torch.tensor(map_shape(image, layer.stage))).all(dim=-1)
    stride = TOKEN_STRIDE * 2**layer.stage
    return [
        AttentionWindow(layer, stride, token, *tensors)
        for token, *tensors in zip(tokens, neighbors, weights, on_map, strict=True)
    ]


def token_under(image: Tensor, point: tuple[float, float], stage: int) -> tuple[int, int]:
    """Finds the token in whose cell a point lies.

    Args:
        image: Image, [..., H, W].
        point: (x, y) in its pixels.
        stage: Stage, from 0.

    Returns:
        (row, column) of the token.

    Raises:
        ValueError: The point is outside the image.
    """
    height, width = image.shape[-2:]
    x, y = point
    if not (0 <= x < width and 0 <= y < height):
        raise ValueError(
            f'a point (x, y) must lie in the image, x below {width} and y below {height}, '
            f'got ({x:g}, {y:g})'
        )
    stride = TOKEN_STRIDE * 2**stage
    return int(y // stride), int(x // stride)


def map_shape(image: Tensor, stage: int) -> tuple[int, int]:
    """Returns how many rows and columns of tokens a stage has for an image [..., H, W]."""
    height, width = image.shape[-2:]
    return axis_tokens(height, stage), axis_tokens(width, stage)


def axis_tokens(length: int, stage: int) -> int:
    """Returns how many tokens a stage has along ``length`` pixels of an image."""
    return -(-length // (TOKEN_STRIDE * 2**stage))


def record_queries_and_keys(
    backbone: NeighborhoodBackbone, image: Tensor, layers: Sequence[Layer]
) -> dict[Layer, tuple[Tensor, Tensor]]:
    """Runs a backbone and records the queries and keys of some of its layers.

    Args:
        backbone: The backbone; runs in eval mode without gradients.
        image: Its input, [1, in_channels, H, W].
        layers: The layers.

    Returns:
        For each layer, query and key, [1, H', W', heads, head_dim]. H' and W' are those of the map
        that is attended to, including the padding of a map smaller than the window.

    Raises:
        ValueError: The image is not one image of the shape that the backbone takes.
    """
    if image.ndim != 4 or image.shape[0] != 1:
        raise ValueError(f'image must have shape [1, C, H, W], got {list(image.shape)}')
    recorded = {}

    def record(layer: Layer, attention: nn.Module, projected: Tensor) -> None:
        heads = attention.num_heads
        query, key, _ = projected.unflatten(-1, (3, heads, -1)).unbind(3)
        recorded[layer] = (query, key)

    handles = []
    was_training = backbone.training
    backbone.eval()
    try:
        for layer in layers:
            attention = backbone.stages[layer.stage].blocks[layer.block].attn
            handles.append(
                attention.qkv.register_forward_hook(
                    lambda _, __, output, layer=layer, attention=attention: record(
                        layer, attention, output
                    )
                )
            )
        with torch.no_grad():
            backbone(image)
    finally:
        for handle in handles:
            handle.remove()
        backbone.train(was_training)
    return recorded


def weights_of(
    attention: NeighborhoodAttention2D,
    query: Tensor,
    key: Tensor,
    *,
    positions: Sequence[tuple[int, int]] | None = None,
) -> tuple[Tensor, Tensor]:
    """Computes the attention weights of a module's tokens, float32 and without gradients.

    Args:
        attention: The module.
        query: Query from `record_queries_and_keys`.
        key: Key from `record_queries_and_keys`.
        positions: See `neighborhood_attention_weights`, also for the return value.
    """
    with torch.no_grad():
        weights, neighbors = neighborhood_attention_weights(
            query,
            key,
            kernel_size=attention.kernel_size,
            dilation=attention.dilation,
            bias=attention.rpb,
            scale=attention.scale,
            positions=positions,
        )
    return weights.float(), neighbors
