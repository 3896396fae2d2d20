"""Finds values of settings that a training run would fail on, at once or only after a while."""

import logging
import math
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import HOOKS, OPTIMIZERS, PARAM_SCHEDULERS, DefaultScope, Registry

from nat_mm.config.objects import type_name
from nat_mm.data.findings import Finding
from nat_mm.data.paths import find_evaluators
from nat_mm.errors import brief, shorten

COUNTS = (
    'optim_wrapper.accumulative_counts',
    'train_cfg.max_epochs',
    'train_cfg.max_iters',
    'train_cfg.val_interval',
)
NUMBERS = (
    'default_hooks.checkpoint.interval',
    'optim_wrapper.optimizer.lr',
    'optim_wrapper.optimizer.weight_decay',
    'optim_wrapper.clip_grad.max_norm',
    'optim_wrapper.clip_grad.clip_value',
)
CLIPPING = ('type', 'max_norm', 'norm_type', 'error_if_nonfinite', 'clip_value', 'foreach')
METRICS = {
    'CocoMetric': ('metric', ('bbox', 'segm', 'proposal', 'proposal_fast')),
    'IoUMetric': ('iou_metrics', ('mIoU', 'mDice', 'mFscore')),
}
"""Argument and values by which an evaluator's metrics are chosen."""


def find_wrong_settings(config: Config) -> Iterator[Finding]:
    """Finds values of settings that mmengine refuses or stumbles over.

    Args:
        config: Config of the run.

    Yields:
        Problems with the optimizer, schedules, hooks, intervals, log level and metrics.
    """
    yield from map(Finding, _find_problems(config))


def _find_problems(config: Config) -> Iterator[str]:
    for place in COUNTS:
        value = _look_up(config, place)
        # mmengine takes 80.0 too, and validates only at the end if the interval is infinite.
        if value is None or (value == math.inf and place == 'train_cfg.val_interval'):
            continue
        if not _is_number(value) or value < 1 or not float(value).is_integer():
            yield f'{place} must be a whole number of at least 1, got {brief(value)}'
    for place in NUMBERS:
        value = _look_up(config, place)
        if value is not None and not _is_number(value):
            yield f'{place} must be a number, got {brief(value)}'
    yield from _find_wrong_multipliers(_look_up(config, 'optim_wrapper.paramwise_cfg'))
    yield from _find_clipping_problem(_look_up(config, 'optim_wrapper.clip_grad'))
    yield from _find_wrong_part(
        config, OPTIMIZERS, 'optim_wrapper.optimizer', _look_up(config, 'optim_wrapper.optimizer')
    )
    yield from _find_wrong_parts(config, PARAM_SCHEDULERS, 'param_scheduler')
    yield from _find_wrong_parts(config, HOOKS, 'custom_hooks')
    hooks = config.get('default_hooks') or {}
    for name, hook in hooks.items():
        yield from _find_wrong_part(config, HOOKS, f'default_hooks.{name}', hook)
    level = config.get('log_level', 'INFO')
    if isinstance(level, str) and not isinstance(logging.getLevelName(level), int):
        yield f"log_level must be one of 'DEBUG', 'INFO', 'WARNING', 'ERROR', got {level!r}"
    yield from _find_unknown_metrics(config)


def _look_up(config: Config, place: str) -> Any:
    """Returns a value by its key, such as ``train_cfg.max_iters``; None if it is not set."""
    value: Any = config
    for name in place.split('.'):
        if not isinstance(value, dict | Config):
            return None
        value = value.get(name)
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _find_wrong_multipliers(options: Any) -> Iterator[str]:
    """Finds learning rates and weight decays of single parameters that are no multiples."""
    place = 'optim_wrapper.paramwise_cfg'
    if not isinstance(options, dict):
        return
    groups = {place: options}
    keys = options.get('custom_keys')
    for name, each in keys.items() if isinstance(keys, dict) else ():
        if isinstance(each, dict):
            groups[f'{place}.custom_keys.{name}'] = each
        else:
            example = 'a dict such as dict(decay_mult=0.0)'
            yield f'{place}.custom_keys.{name} must be {example}, got {brief(each)}'
    for group, each in groups.items():
        for name, value in each.items():
            if name.endswith('_mult') and not _is_number(value):
                yield f'{group}.{name} must be a number, got {brief(value)}'


def _find_clipping_problem(clipping: Any) -> Iterator[str]:
    place, example = 'optim_wrapper.clip_grad', 'such as dict(max_norm=1.0)'
    if clipping is not None and not (isinstance(clipping, dict) and clipping):
        yield f'{place} must be a dict {example}, or None, got {brief(clipping)}'
        return
    unknown = [name for name in clipping or () if name not in CLIPPING]
    if unknown:
        yield f'{place}.{unknown[0]} is not an argument of gradient clipping: write one {example}'


def _find_wrong_parts(config: Config, registry: Registry, key: str) -> Iterator[str]:
    parts = config.get(key)
    if key == 'param_scheduler' and isinstance(parts, dict):
        # Without a type, it has the schedules of several optimizers by name.
        if 'type' in parts:
            yield from _find_wrong_part(config, registry, key, parts)
    elif isinstance(parts, list | tuple):
        for index, part in enumerate(parts):
            yield from _find_wrong_part(config, registry, f'{key}.{index}', part)
    elif parts is not None:
        yield f'{key} must be a list of dicts, each with a type, got {brief(parts)}'


def _find_wrong_part(config: Config, registry: Registry, place: str, part: Any) -> Iterator[str]:
    """Finds the part of a run that has no registered type; None and objects are fine."""
    if isinstance(part, str | int | float | list | tuple):
        yield f'{place} must be a dict with a type, got {brief(part)}'
    kind = part.get('type') if isinstance(part, dict) else None
    if not isinstance(kind, str):
        return
    with (
        DefaultScope.overwrite_default_scope(config.default_scope),
        registry.switch_scope_and_registry(part.get('_scope_')) as scoped,
    ):
        found = scoped.get(kind)
    if found is None:
        yield f'{place}.type is {kind!r}, which is not in the {registry.name} registry'


def _find_unknown_metrics(config: Config) -> Iterator[str]:
    for split in ('val', 'test'):
        for place, evaluator in find_evaluators(config, split):
            kind = type_name(evaluator)
            if kind not in METRICS:
                continue
            argument, known = METRICS[kind]
            given = evaluator.get(argument, ())
            given = [given] if isinstance(given, str) else given
            unknown = [each for each in given or () if each not in known]
            if unknown:
                yield (
                    f'{place}.{argument} has {shorten(unknown)}, which {kind} does not know: '
                    f'write {" or ".join(map(repr, known))}'
                )
            yield from _find_short_limits(place, evaluator, given or ('bbox',))


def _find_short_limits(place: str, evaluator: dict[str, Any], metrics: Any) -> Iterator[str]:
    """Finds fewer limits of objects per image than the three that pycocotools looks up.

    mmdetection's evaluation in several processes takes any number.
    """
    limits = evaluator.get('proposal_nums')
    is_short = isinstance(limits, list | tuple) and len(limits) < 3
    is_looked_up = not evaluator.get('use_mp_eval') and not evaluator.get('format_only')
    if is_short and is_looked_up and set(metrics) - {'proposal_fast'}:
        yield (
            f'{place}.proposal_nums must have three numbers, such as (100, 300, 1000), or '
            f'use_mp_eval=True, got {brief(limits)}'
        )
