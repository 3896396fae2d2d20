"""Finds mismatches in detectors: RoI heads, DETR, and necks that need divisible image sizes."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from nat_mm.config.objects import type_name
from nat_mm.data.findings import Finding
from nat_mm.data.mismatches import (
    describe_maps,
    explain_failure,
    find_wrong_strides,
    measure_stride,
)
from nat_mm.data.model_parts import Described, Part, find_parts, find_steps, run_necks
from nat_mm.data.shape_trace import Failure, ShapeTrace, is_feature_maps
from nat_mm.data.sources import is_known

USUAL_LEVELS = 4
"""Number of levels, starting at stride 8, that DINO and other deformable DETR variants take."""
ODD_SIZE = (501, 619)
REGIONS = 3


def find_roi_head_problems(
    trace: ShapeTrace, model: dict[str, Any], features: Sequence[Any], giver: str
) -> Iterator[Finding]:
    """Checks the feature maps against what the RoI extractors expect, and runs the RoI heads."""
    owner, config = getattr(trace.model, 'roi_head', None), model.get('roi_head')
    if owner is None or not isinstance(config, dict):
        return
    place = 'model.roi_head'
    extractors: list[Part] = []
    for kind in ('bbox', 'mask'):
        own = find_parts(owner, config, f'{kind}_roi_extractor', place)
        # A mask head without an extractor shares that of the box head.
        extractors = [Part(*each, features, giver) for each in own] or extractors
        heads = find_parts(owner, config, f'{kind}_head', place)
        for extractor, head in zip(extractors, heads, strict=False):
            text = _check_extractor(trace, extractor)
            text = text or _check_region_head(trace, extractor, head, owner)
            if text:
                yield Finding(text)


def _check_extractor(trace: ShapeTrace, part: Part) -> str | None:
    strides = getattr(part.module, 'featmap_strides', None)
    if not isinstance(strides, list | tuple) or not is_feature_maps(part.given):
        return None
    text = find_wrong_strides(trace, part, strides, all_levels=False)
    channels = {each.shape[1] for each in part.given[: len(strides)]}
    declared = getattr(part.module, 'out_channels', None)
    if text or len(channels) > 1 or declared in channels or 'aggregation' in part.config:
        return text
    return (
        f'{part.place}.out_channels is {declared}, but {part.giver} gives '
        f'{describe_maps(part.given)}: write out_channels={channels.pop()}'
    )


def _check_region_head(
    trace: ShapeTrace, extractor: Part, head: Described, owner: nn.Module
) -> str | None:
    layers = getattr(extractor.module, 'roi_layers', None)
    size = getattr(layers[0], 'output_size', None) if layers else None
    channels = getattr(extractor.module, 'out_channels', None)
    if size is None or channels is None:
        return None
    size = size if isinstance(size, list | tuple) else (size, size)
    regions = torch.empty(REGIONS, channels, *size, device='meta')
    if isinstance(getattr(owner, 'shared_head', None), nn.Module):
        regions = trace.run(owner.shared_head, regions)
    if not isinstance(regions, torch.Tensor):
        return None
    place, module, config = head
    part = Part(place, module, config, [regions], extractor.place)
    result = trace.run(module, regions)
    return explain_failure(trace, part, result) if isinstance(result, Failure) else None


def find_detr_problems(trace: ShapeTrace, part: Part) -> Iterator[Finding]:
    """Checks levels and channels of the maps against what DETR and its variants expect."""
    model, given = part.module, part.given
    channels = getattr(model, 'embed_dims', None)
    if not hasattr(model, 'decoder') or channels is None or not is_feature_maps(given):
        return
    described = f'{part.giver} gives {describe_maps(given)}'
    if given[-1].shape[1] != channels:
        yield Finding(
            f"the transformer's embed_dims is {channels}, but {described}: write "
            f'{part.giver}.out_channels={channels}'
        )
    levels = getattr(model, 'num_feature_levels', None)
    if levels is None:
        return
    if len(given) != levels:
        yield Finding(
            f'model.num_feature_levels is {levels}, but {described}: write '
            f'{part.giver}.num_outs={levels}'
        )
        return
    for name, module in model.named_modules():
        attended = getattr(module, 'num_levels', None)
        if name.startswith(('encoder.', 'decoder.')) and attended not in (None, levels):
            coder = name.partition('.')[0]
            yield Finding(
                f'model.{name} attends to {attended} levels, but {described}: write '
                f'num_levels={levels} in the attention of model.{coder}.layer_cfg'
            )
            return
    finest = max(measure_stride(trace, given[0]))
    if levels == USUAL_LEVELS and finest < 6:
        yield Finding(
            f'{described}, the finest of stride {round(finest)}. {type_name(part.config)} with '
            f'{levels} levels starts at stride 8, which takes a quarter of the memory: write '
            'model.backbone.out_indices=(1, 2, 3) and the last three of model.neck.in_channels',
            is_error=False,
        )


def find_missing_scores(trace: ShapeTrace, *, is_tested: bool) -> Iterator[Finding]:
    """Checks that heads that rank a fixed number of scores have as many as they shall return.

    Args:
        trace: The model.
        is_tested: Whether the run validates or tests it; otherwise, it is a warning.

    Yields:
        What is wrong.
    """
    for module in trace.model.modules():
        if not is_known(type(module)):
            continue
        names = {each.__name__ for each in type(module).__mro__}
        if 'DETRHead' in names and 'GroundingDINOHead' not in names:
            queries, place = getattr(trace.model, 'num_queries', None), 'num_queries'
            per_query = module.num_classes if module.loss_cls.use_sigmoid else 1
            key, default = 'max_per_img', None
        elif 'MaskFormerFusionHead' in names and (module.test_cfg or {}).get('instance_on'):
            queries, place = trace.model.panoptic_head.num_queries, 'panoptic_head.num_queries'
            per_query, key, default = module.num_classes, 'max_per_image', 100
        elif 'SparseRoIHead' in names:
            rpn_head = getattr(trace.model, 'rpn_head', None)
            queries, place = getattr(rpn_head, 'num_proposals', None), 'rpn_head.num_proposals'
            per_query, key, default = module.bbox_head[-1].num_classes, 'max_per_img', None
        else:
            continue
        wanted = (module.test_cfg or {}).get(key, default)
        if isinstance(wanted, int) and queries is not None and wanted > queries * per_query:
            limit = queries * per_query
            scores = 'one score' if per_query == 1 else f'{per_query} scores'
            yield Finding(
                f'{key} in model.test_cfg is {wanted}, but model.{place} is {queries}, with '
                f'{scores} each: write {key}={limit} or less, or at least '
                f'{place}={math.ceil(wanted / per_query)}',
                is_error=is_tested,
            )


def find_odd_size_problems(
    trace: ShapeTrace, config: Config, maps: Sequence[torch.Tensor]
) -> Iterator[Finding]:
    """Checks that a detector's neck accepts the sizes to which its images are padded."""
    if config.default_scope != 'mmdet' or not is_feature_maps(maps):
        return
    preprocessor = config.model.get('data_preprocessor') or {}
    words = ('Pad', 'Crop', 'Mosaic')
    names = [type_name(step) for step in find_steps(config)]
    if preprocessor.get('batch_augments') or any(word in name for word in words for name in names):
        return
    divisor = preprocessor.get('pad_size_divisor', 1)
    image = [math.ceil(side / divisor) * divisor for side in ODD_SIZE]
    shapes = []
    for each in maps:
        strides = measure_stride(trace, each)[::-1]
        sides = [math.ceil(side / stride) for side, stride in zip(image, strides, strict=True)]
        shapes.append((*each.shape[:2], *sides))
    made_up = tuple(torch.empty(shape, device='meta') for shape in shapes)
    part, result = run_necks(trace, config, made_up)
    if part and isinstance(result, Failure) and 'must match' in str(result.error):
        yield Finding(
            f'{part.place} only takes images whose sides are multiples of 32, but '
            f'model.data_preprocessor.pad_size_divisor is {divisor}: write pad_size_divisor=32'
        )
