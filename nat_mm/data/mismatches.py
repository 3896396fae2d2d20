"""Explains in one line why a neck or a head does not fit its input."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from nat_mm.data.model_parts import Part
from nat_mm.data.shape_trace import Failure, ShapeTrace, is_feature_maps

TOLERANCE = 1.4
"""Allowed ratio between a stride and the measured one, as the sides of feature maps are rounded."""
SMALLEST_SIDE = 5
STRIDE_KEYS = ('strides', 'featmap_strides', 'point_strides')


def explain_failure(trace: ShapeTrace, part: Part, failure: Failure) -> str | None:
    """Explains which value of the config made a part fail.

    Args:
        trace: The trace in which it failed.
        part: The part that failed.
        failure: How it failed.

    Returns:
        One line; None if the config is not known to be wrong, because some operations that work in
        training do not run on the meta device.
    """
    error = failure.error
    # Not supported by PyTorch or mmcv-lite, or the part takes other inputs.
    if isinstance(error, TypeError | NotImplementedError) or 'meta' in str(error):
        return None
    return (
        _find_wrong_index(part)
        or find_wrong_channels(trace, part)
        or _find_wrong_side(part)
        or _find_unpooled(part, failure)
        or _describe_layer(trace, part, failure)
    )


def find_wrong_channels(trace: ShapeTrace, part: Part) -> str | None:
    """Compares the channels of feature maps with the ``in_channels`` of a part, if it has any."""
    if not is_feature_maps(part.given) and not _are_vectors(part.given):
        return None
    declared = part.config.get('in_channels', getattr(part.module, 'in_channels', None))
    given = [each.shape[1] for each in part.given]
    index = part.config.get('in_index', getattr(part.module, 'in_index', None))
    if isinstance(declared, int):
        selected = given
        if isinstance(index, int):
            selected = [given[index]]
        elif index is not None:
            return None
        elif _are_vectors(part.given):
            selected = given[-1:]
        if declared in selected or len(set(selected)) > 1:
            return None
        right: Any = selected[0]
    elif isinstance(declared, list | tuple):
        right = [given[each] for each in index] if isinstance(index, list | tuple) else given
        if list(declared) == right:
            return None
        declared = list(declared)
    else:
        return None
    advice = f'in_channels={right}{_hint_at_levels(declared, right)}'
    if isinstance(declared, list) and part.giver == 'model.backbone' and index is None:
        indices = _last_stages(trace, part.given, len(declared))
        if indices:
            last = right[-len(declared) :]
            advice = f'model.backbone.out_indices={indices} and {part.place}.in_channels={last}'
    return (
        f'{part.place}.in_channels is {declared}, but {part.giver} gives '
        f'{describe_maps(part.given)}: write {advice}'
    )


def find_wrong_strides(
    trace: ShapeTrace, part: Part, declared: Sequence[Any], *, all_levels: bool
) -> str | None:
    """Compares the strides that a part assumes with those of the feature maps that it receives.

    Args:
        trace: The trace, for the size of the image.
        part: The part.
        declared: The stride of each level: a number, or a pair for width and height.
        all_levels: Whether the part needs one stride per map; otherwise, it takes the first maps.

    Returns:
        One line, or None.
    """
    if not is_feature_maps(part.given):
        return None
    pairs = _as_pairs(declared)
    measured = [measure_stride(trace, each) for each in part.given]
    fits = len(pairs) == len(measured) if all_levels else len(pairs) <= len(measured)
    # The size of small maps depends as much on padding as on strides.
    large = [min(each.shape[2:]) >= SMALLEST_SIDE for each in part.given]
    near = [_is_near(*each) for each in zip(pairs, measured, strict=False)]
    if fits and all(is_near for is_near, is_large in zip(near, large, strict=False) if is_large):
        return None
    key = next(_find_keys(part.config, pairs), None)
    place = f'{part.place}.{key}' if key else f'model.{trace.names[part.module]}.strides'
    right = [_nominal(trace, each) for each in part.given]
    if not all_levels:
        right = right[: len(pairs)]
    shown = [each[0] if each[0] == each[1] else each for each in pairs]
    advice = (
        f'{place.rpartition(".")[2]}={right}, or choose other levels of the backbone (out_indices) '
        'or of the neck (start_level, num_outs)'
    )
    if all_levels and right[-len(shown) :] == shown:
        # The only difference is extra fine levels, for which no anchors or assigners are designed.
        advice = _advise_last_stages(trace, part, len(shown)) or advice
    return (
        f'{place} is {shown}, but {part.giver} gives {describe_maps(part.given)} of '
        f'strides {[_nominal(trace, each) for each in part.given]}: write {advice}'
    )


def measure_stride(trace: ShapeTrace, feature: Tensor) -> tuple[float, float]:
    """Returns the image pixels per cell of a feature map, along width and height."""
    height, width = trace.image_size
    return width / feature.shape[3], height / feature.shape[2]


def describe_maps(maps: Sequence[Tensor]) -> str:
    """Describes the number of feature maps and their channels."""
    channels = [each.shape[1] for each in maps]
    kind = 'vector' if maps[0].ndim == 2 else 'feature map'
    number = f'1 {kind}' if len(maps) == 1 else f'{len(maps)} {kind}s'
    same = len(set(channels)) == 1
    return f'{number} of {channels[0] if same else channels} channels'


def _is_near(declared: Sequence[float], measured: Sequence[float]) -> bool:
    return all(
        1 / TOLERANCE < each / other < TOLERANCE
        for each, other in zip(declared, measured, strict=True)
    )


def _nominal(trace: ShapeTrace, feature: Tensor) -> int:
    """Returns the stride in whole pixels, rounded to a power of two if it is close to one."""
    stride = measure_stride(trace, feature)[0]
    power = 2 ** round(math.log2(stride))
    return power if abs(power - stride) < power / 8 else round(stride)


def _find_wrong_index(part: Part) -> str | None:
    index = part.config.get('in_index', getattr(part.module, 'in_index', None))
    indices = [index] if isinstance(index, int) else index
    if not isinstance(indices, list | tuple) or not is_feature_maps(part.given):
        return None
    count = len(part.given)
    if all(isinstance(each, int) and -count <= each < count for each in indices):
        return None
    return (
        f'{part.place}.in_index is {index}, but {part.giver} gives {describe_maps(part.given)}: '
        f'its indices are 0 to {count - 1}'
    )


def _find_wrong_side(part: Part) -> str | None:
    """Compares the ``roi_feat_size`` of an RoI head with the size of the extracted features."""
    declared = getattr(part.module, 'roi_feat_size', None)
    if not declared or not is_feature_maps(part.given):
        return None
    side = tuple(part.given[0].shape[2:])
    if declared in (side, side[0]):
        return None
    return (
        f'{part.place}.roi_feat_size is {declared}, but {part.giver} gives {side[0]} x {side[1]} '
        f'cells: write {side[0]}, or another output_size in its roi_layer'
    )


def _find_unpooled(part: Part, failure: Failure) -> str | None:
    """Reports a classifier's head that gets feature maps but needs vectors."""
    if not isinstance(failure.module, nn.Linear) or not is_feature_maps(part.given):
        return None
    if part.place != 'model.head':
        return None
    return (
        f'{part.place} takes vectors, but {part.giver} gives {describe_maps(part.given)}: put '
        "neck=dict(type='GlobalAveragePooling') between them"
    )


def _describe_layer(trace: ShapeTrace, part: Part, failure: Failure) -> str | None:
    """Describes the layer that gets a different number of channels than it takes."""
    module = failure.module
    if not failure.inputs or module not in trace.names:
        return None
    shape = failure.inputs[0].shape
    axis = 1
    if isinstance(module, _ConvNd):
        wanted = module.in_channels
    elif isinstance(module, nn.Linear):
        wanted, axis = module.in_features, -1
    elif isinstance(module, _BatchNorm):
        wanted = module.num_features
    elif isinstance(module, nn.GroupNorm):
        wanted = module.num_channels
    else:
        return None
    if len(shape) < 2 or shape[axis] == wanted:
        return None
    return (
        f'{part.place} does not fit what {part.giver} gives: model.{trace.names[module]} takes '
        f'{wanted} channels, but gets {shape[axis]}'
    )


def _last_stages(trace: ShapeTrace, given: Sequence[Any], count: int) -> tuple[int, ...] | None:
    """Returns the ``out_indices`` with which the backbone returns only its last ``count`` maps."""
    indices = getattr(getattr(trace.model, 'backbone', None), 'out_indices', None)
    if not isinstance(indices, list | tuple) or not 0 < count < len(given) == len(indices):
        return None
    return tuple(indices[-count:])


def _advise_last_stages(trace: ShapeTrace, part: Part, count: int) -> str | None:
    """Advises how to give a head only the last levels of a neck with one level per stage."""
    indices = _last_stages(trace, part.given, count)
    channels = getattr(getattr(trace.model, 'neck', None), 'in_channels', None)
    if not indices or part.giver != 'model.neck' or not isinstance(channels, list | tuple):
        return None
    if len(channels) != len(part.given):
        return None
    return (
        f'model.backbone.out_indices={indices} and model.neck.in_channels={list(channels[-count:])}'
    )


def _hint_at_levels(declared: Any, right: Any) -> str:
    if isinstance(declared, list) and len(declared) != len(right):
        return f', or let the part before give {len(declared)} levels (out_indices of a backbone)'
    return ''


def _are_vectors(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(
        isinstance(each, Tensor) and each.ndim == 2 for each in values
    )


def _find_keys(
    config: dict[str, Any], pairs: list[tuple[Any, ...]], path: str = ''
) -> Iterator[str]:
    """Finds the keys of strides in a part's config, such as ``anchor_generator.strides``."""
    for name, value in config.items():
        if name in STRIDE_KEYS and isinstance(value, list | tuple):
            if _as_pairs(value) == pairs:
                yield f'{path}{name}'
        elif isinstance(value, dict):
            yield from _find_keys(value, pairs, f'{path}{name}.')


def _as_pairs(strides: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [tuple(each) if isinstance(each, list | tuple) else (each, each) for each in strides]
