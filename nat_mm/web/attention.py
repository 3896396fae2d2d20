"""Draws what the token under a click attends to."""

from dataclasses import dataclass, replace

import numpy as np

from nat_mm.analysis import attention_windows, find_backbone, prepare_image
from nat_mm.analysis.drawing import draw_window
from nat_mm.analysis.windows import TOKEN_STRIDE
from nat_mm.backbones.base import NeighborhoodBackbone
from nat_mm.web.findings import PackedFinding
from nat_mm.web.legend import write_scale
from nat_mm.web.models import PageModel


@dataclass(frozen=True)
class StageChoices:
    """The choices within a stage.

    Attributes:
        stride: Image pixels per token.
        blocks: Number of layers.
        heads: Number of attention heads.
    """

    stride: int
    blocks: int
    heads: int


def list_stages(model: PageModel) -> list[StageChoices]:
    """Lists the stages whose attention can be drawn.

    Args:
        model: A model.

    Returns:
        The stages that run; none if the model's backbone has no neighborhood attention.
    """
    backbone = _find_backbone(model)
    if backbone is None:
        return []
    return [
        StageChoices(TOKEN_STRIDE * 2**index, len(stage.blocks), stage.blocks[0].attn.num_heads)
        for index, stage in enumerate(backbone.stages[: backbone.out_indices[-1] + 1])
    ]


def draw_clicked_window(
    model: PageModel,
    finding: PackedFinding,
    *,
    point: tuple[float, float],
    stage: int,
    block: int,
    head: int | None,
) -> tuple[np.ndarray, str]:
    """Draws the neighbors of a token over the image; brighter means a higher weight.

    Args:
        model: The model.
        finding: Its result for the image.
        point: (x, y) in the image.
        stage: Stage of the backbone, from 0.
        block: Layer of the stage, from 0.
        head: Attention head, from 0; None for the mean over all.

    Returns:
        The drawing, BGR, with the size of `PackedFinding.enlarged_image`, and its color scale with
        a sentence about the weights, as HTML.
    """
    frame = finding.frame()
    frame = replace(frame, results=model.model.loaded(frame))
    prepared = prepare_image(model.model.module, model.model.config, frame)
    backbone = _find_backbone(model)
    (window,) = attention_windows(
        backbone,
        prepared.tensor,
        points=[prepared.to_tensor(point)],
        stage=stage,
        block=block,
        head=head,
    )
    x, y = (finding.enlargement / scale for scale in prepared.scale)
    attention = backbone.stages[stage].blocks[block].attn
    row, column = window.token
    size = f'{attention.kernel_size} × {attention.kernel_size}'
    highest = float(window.weights.max())
    text = (
        f'{write_scale(highest)}'
        f'Token in row {row}, column {column}: its strongest weight is {highest:.3f}; '
        f'all {attention.kernel_size**2} of its {size} window, dilation {attention.dilation}, '
        'add up to 1.'
    )
    return draw_window(finding.enlarged_image(), window, scale=(x, y)), text


def _find_backbone(model: PageModel) -> NeighborhoodBackbone | None:
    try:
        return find_backbone(model.model.module)
    except ValueError:
        return None
