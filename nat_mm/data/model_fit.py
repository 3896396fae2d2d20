"""Finds parts of a model that do not fit together, using the shapes of one forward pass."""

import dataclasses
import math
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm

from nat_mm.backbones.base import FreezableBackbone
from nat_mm.config.objects import find_class, type_name, walk_dicts
from nat_mm.data.detector_fit import (
    find_detr_problems,
    find_missing_scores,
    find_odd_size_problems,
    find_roi_head_problems,
)
from nat_mm.data.findings import Finding
from nat_mm.data.loaders import last_training_batch
from nat_mm.data.mismatches import explain_failure, find_wrong_channels, find_wrong_strides
from nat_mm.data.model_parts import Described, Part, find_parts, find_steps, run_necks
from nat_mm.data.shape_trace import Failure, ShapeTrace
from nat_mm.data.sources import DataSource, is_known
from nat_mm.data.unused_outputs import find_unused_outputs

DETECTED_SIZE, SEGMENTED_SIZE, CLASSIFIED_SIZE = (512, 640), (512, 512), (224, 224)


def find_model_problems(
    config: Config, *, for_training: bool = True, sources: Sequence[DataSource] = ()
) -> Iterator[Finding]:
    """Compares the backbone's feature maps with what neck and heads assume.

    The model is built on PyTorch's meta device and its parts run there once, which takes no memory
    and little time. Parts that cannot run there are skipped.

    Args:
        config: Config of the run.
        for_training: Whether to include what only training needs: more than one value per channel
            for batch normalization.
        sources: The training datasets, if known, for the number of images in a last batch.

    Yields:
        What does not fit: numbers of levels, strides, channels, sizes that a neck cannot take,
        fewer scores than results, batch normalization over single values, outputs that no head
        uses.
    """
    model = config.get('model') or {}
    if not isinstance(model.get('backbone'), dict):
        return
    channels = model.backbone.get('in_channels', 3)
    if not isinstance(channels, int):
        return
    extract = getattr(find_class(MODELS, model, config), 'extract_feat', None)
    is_usual = extract is None or is_known(extract)
    text = (is_usual and _find_wrong_mean(config, channels)) or _find_wrong_weights(config)
    if text:
        yield Finding(text)
    if text or not is_usual:
        # Users' models may combine feature maps, such as those of two images.
        return
    try:
        trace = ShapeTrace(config, _find_image_size(config), channels)
    except AssertionError as error:
        yield Finding(_describe_refusal(error))
        return
    except Exception:
        # If the model is really wrong, building it for training will say so.
        return
    if not isinstance(getattr(trace.model, 'backbone', None), nn.Module):
        return
    maps = trace.run(trace.model.backbone, trace.image())
    if isinstance(maps, Failure) and isinstance(maps.error, ValueError):
        yield Finding(f'model.backbone: {maps.error}')
        return
    part, features = run_necks(trace, config, maps)
    if isinstance(features, Failure):
        text = part and explain_failure(trace, part, features)
        if text:
            yield Finding(text)
        return
    if not isinstance(features, list | tuple):
        return

    giver = part.place if part else 'model.backbone'
    for head in _find_heads(trace.model, model):
        yield from _check_head(trace, Part(*head, features, giver))
    yield from find_roi_head_problems(trace, model, features, giver)
    yield from find_detr_problems(trace, Part('model', trace.model, model, features, giver))
    is_tested = not for_training or bool(config.get('val_evaluator'))
    yield from find_missing_scores(trace, is_tested=is_tested)
    if for_training and not _is_reid(config):
        yield from _check_single_values(trace, config, sources)
    yield from find_unused_outputs(trace, config)
    yield from find_odd_size_problems(trace, config, maps)


def _find_wrong_mean(config: Config, channels: int) -> str | None:
    place = 'model.' if config.model.get('data_preprocessor') else ''
    preprocessor = config.model.get('data_preprocessor') or config.get('data_preprocessor') or {}
    mean = preprocessor.get('mean')
    if not isinstance(mean, list | tuple) or len(mean) in (1, channels):
        return None
    kind = find_class(MODELS, preprocessor, config)
    if 'in_channels' not in config.model.backbone or (kind is not None and not is_known(kind)):
        return None
    return (
        f'model.backbone.in_channels is {channels}, but {place}data_preprocessor.mean has '
        f'{len(mean)} values: write the number of channels of the images, and a mean and a std '
        'for each'
    )


def _find_wrong_weights(config: Config) -> str | None:
    """Reports ``model.pretrained``, with which mmseg would give our backbone other weights."""
    model = config.model
    if not model.get('pretrained'):
        return None
    kind = find_class(MODELS, model.backbone, config)
    if kind is None or not issubclass(kind, FreezableBackbone):
        return None
    return (
        f'model.pretrained is {model.pretrained!r}, which {kind.__name__} does not take: write '
        "pretrained=None, and weights into model.backbone.init_cfg as dict(type='Pretrained', "
        'checkpoint=...)'
    )


def _describe_refusal(error: AssertionError) -> str:
    """Describes a failed assertion in a constructor."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    owners = [frame.f_locals.get('self') for frame in frames]
    names = [type(each).__name__ for each in owners if isinstance(each, nn.Module)]
    condition = str(error) or traceback.extract_tb(error.__traceback__)[-1].line
    return f'model: {names[-1] if names else "a part"} does not accept its arguments: {condition}'


def _find_image_size(config: Config) -> tuple[int, int]:
    """Finds height and width of the training images in the config, or uses a default."""
    preprocessor = config.model.get('data_preprocessor') or {}
    if config.default_scope == 'mmdet':
        # SSD's anchors are for one size: its last maps are not the image divided by the stride.
        generator = (config.model.get('bbox_head') or {}).get('anchor_generator') or {}
        augments = preprocessor.get('batch_augments') or []
        padding = [each.get('size') for each in augments if isinstance(each, dict)]
        sizes = [generator.get('input_size'), *padding]
        if _is_reid(config):
            inner = [each for step in find_steps(config) for _, each in walk_dicts(step)]
            scales = [each.get('scale') for each in inner if each.get('keep_ratio') is False]
            sizes += [scale[::-1] for scale in scales if isinstance(scale, list | tuple)]
        default = DETECTED_SIZE
    else:
        crops = [each for each in find_steps(config) if 'Crop' in type_name(each)]
        sizes = [preprocessor.get('size')]
        sizes += [each.get('crop_size') or each.get('scale') for each in crops]
        default = SEGMENTED_SIZE if config.default_scope == 'mmseg' else CLASSIFIED_SIZE
    for size in sizes:
        pair = (size, size) if isinstance(size, int) else size
        if isinstance(pair, list | tuple) and [type(each) for each in pair] == [int, int]:
            return (pair[0], pair[1])
    return default


def _is_reid(config: Config) -> bool:
    """Whether a model compares objects for tracking: its samples are several resized crops each."""
    return config.default_scope == 'mmdet' and 'head' in config.model


def _find_heads(model: nn.Module, config: dict[str, Any]) -> Iterator[Described]:
    """Yields the heads that take only the feature maps of backbone or neck."""
    for name in ('rpn_head', 'bbox_head', 'mask_head', 'decode_head', 'auxiliary_head', 'head'):
        # DETR's head takes the output of its decoder.
        if name != 'bbox_head' or not hasattr(model, 'decoder'):
            for place, module, head_config in find_parts(model, config, name):
                if not hasattr(module, 'pixel_decoder'):
                    yield place, module, head_config
    for name in ('panoptic_head', 'decode_head'):
        decoder = getattr(getattr(model, name, None), 'pixel_decoder', None)
        if isinstance(decoder, nn.Module):
            # Mask2FormerHead does not use the strides in mmdet's own configs.
            head_config = {key: value for key, value in config[name].items() if key != 'strides'}
            yield f'model.{name}', decoder, head_config


def _check_head(trace: ShapeTrace, part: Part) -> Iterator[Finding]:
    """Runs a head, and checks the strides of its anchor or point generator."""
    result = trace.run(part.module, part.given)
    failed = isinstance(result, Failure)
    if failed and isinstance(result.error, TypeError | NotImplementedError):
        # It takes other inputs, like CondInst's mask head, or is called in another way.
        return
    text = explain_failure(trace, part, result) if failed else None
    if text is None and trace.names[part.module].endswith('pixel_decoder'):
        # Deformable attention does not run on the meta device.
        text = find_wrong_channels(trace, part)
    part = dataclasses.replace(part, given=trace.inputs.get(part.module, part.given))
    for generator in vars(part.module).values():
        if text is None and hasattr(generator, 'num_levels') and hasattr(generator, 'strides'):
            text = find_wrong_strides(trace, part, generator.strides, all_levels=True)
    if text:
        yield Finding(text)


def _check_single_values(
    trace: ShapeTrace, config: Config, sources: Sequence[DataSource]
) -> Iterator[Finding]:
    """Reports batch normalization over a single value per channel, which PyTorch refuses."""
    loader = config.get('train_dataloader') or {}
    launcher = config.get('launcher')
    single = [module for module, values in trace.normalized.items() if values == 1]
    if launcher not in (None, 'none'):
        # SyncBatchNorm normalizes over all processes.
        single = [each for each in single if not isinstance(each, SyncBatchNorm)]
    if not single:
        return
    if loader.get('batch_size') == 1:
        which, remedy = 'train_dataloader.batch_size is 1', 'batch_size=2 or more'
        in_each_process = not all(isinstance(each, SyncBatchNorm) for each in single)
    elif launcher in (None, 'none') and last_training_batch(config, sources) == 1:
        which = 'the last batch of train_dataloader has 1 image'
        remedy = 'drop_last=True, another batch_size'
        in_each_process = False
    else:
        return
    groups = math.gcd(32, *(each.num_features for each in single))
    heads = sorted({f'model.{trace.names[each].partition(".")[0]}' for each in single})
    yield Finding(
        f'{which}, but model.{trace.names[single[0]]} normalizes maps of 1 x 1 over the batch and '
        f'needs more than one image: write {remedy}, or '
        f"norm_cfg=dict(type='GN', num_groups={groups}) in {' and '.join(heads)}",
        # If the config has no launcher, as in nat-mm check, there may be more than one process.
        is_error=in_each_process or launcher is not None,
    )
