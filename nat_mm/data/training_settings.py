"""Finds contradictory settings of a training run."""

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.config import Config

from nat_mm.config.objects import type_name
from nat_mm.data.findings import Finding
from nat_mm.data.paths import every_evaluator
from nat_mm.errors import shorten

COCO_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
PROPOSAL_ITEMS = ('AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000')
IOU_NAMES = {
    'mIoU': ('aAcc', 'mIoU', 'mAcc'),
    'mDice': ('aAcc', 'mDice', 'mAcc'),
    'mFscore': ('aAcc', 'mFscore', 'mPrecision', 'mRecall'),
}
SEGMENTORS = ('EncoderDecoder', 'CascadeEncoderDecoder')
RELEASED = 'shi-labs.com/projects/', 'hf://shi-labs/'
"""Where the authors' weights are hosted."""
RELEASED_COLORS = {'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375]}
"""Mean and standard deviation of the images, red first, with which these were trained."""


def find_setting_problems(config: Config) -> Iterator[Finding]:
    """Finds settings that would stop a run at its first batch or validation, or impair training.

    Args:
        config: Config of the run.

    Yields:
        Problems with the padding of a segmentor's images, its inference, the colors that released
        weights get, the metric that selects the best checkpoint, and schedules longer than the run.
    """
    yield from _find_padding_problem(config)
    yield from _find_inference_problem(config)
    yield from _find_color_problem(config)
    yield from _find_metric_problem(config)
    yield from _find_long_schedules(config)


def _find_padding_problem(config: Config) -> Iterator[Finding]:
    preprocessor = (config.get('model') or {}).get('data_preprocessor') or {}
    kind = type_name(preprocessor)
    if kind != 'SegDataPreProcessor' or config.get('train_dataloader') is None:
        return
    size, divisor = preprocessor.get('size'), preprocessor.get('size_divisor')
    if (size is None) == (divisor is None):
        found = f'has size={size} and size_divisor={divisor}' if size else 'has neither'
        yield Finding(
            f'model.data_preprocessor {found}, but mmseg needs one of them: write size=(height, '
            'width) of the crops, or size_divisor=32, and None for the other'
        )


def _find_inference_problem(config: Config) -> Iterator[Finding]:
    """Checks ``test_cfg`` of mmseg's models, which they first read in validation."""
    model = config.get('model') or {}
    kind = type_name(model)
    if kind not in SEGMENTORS or config.get('val_dataloader') is None:
        return
    settings = model.get('test_cfg')
    given = settings if isinstance(settings, dict) else {}
    mode = given.get('mode', 'whole') if isinstance(settings, dict) else None
    missing = [name for name in ('crop_size', 'stride') if given.get(name) is None]
    if mode == 'whole' or (mode == 'slide' and not missing):
        return
    found = f'has no {" and no ".join(missing)}' if mode == 'slide' else f'is {settings!r}'
    yield Finding(
        f"model.test_cfg {found}: write dict(mode='whole'), or dict(mode='slide', "
        'crop_size=(height, width), stride=(height, width)), in pixels'
    )


def _find_color_problem(config: Config) -> Iterator[Finding]:
    """Checks that released weights get images like those of their training, unlike YOLOX's."""
    model = config.get('model') or {}
    backbone = model.get('backbone')
    initial = backbone.get('init_cfg') if isinstance(backbone, dict) else None
    sources = (
        config.get('load_from'),
        initial.get('checkpoint') if isinstance(initial, dict) else '',
    )
    if not any(host in str(source) for host in RELEASED for source in sources):
        return
    place = 'model.data_preprocessor'
    preprocessor = model.get('data_preprocessor')
    if not preprocessor:
        place, preprocessor = 'data_preprocessor', config.get('data_preprocessor') or {}
    flip = 'to_rgb' if config.get('default_scope') == 'mmpretrain' else 'bgr_to_rgb'
    wanted = {**RELEASED_COLORS, flip: True}
    for name, value in wanted.items():
        given = preprocessor.get(name)
        is_list = isinstance(given, list | tuple)
        if is_list and len(given) != len(RELEASED_COLORS['mean']):
            return
        if given is True if value is True else is_list and _are_close(given, value):
            continue
        advice = ', '.join(f'{name}={value}' for name, value in wanted.items())
        yield Finding(
            f'{place}.{name} is {list(given) if is_list else given}, but the released weights were '
            f'trained on other colors: write {advice}',
            is_error=False,
        )
        return


def _are_close(values: Sequence[Any], wanted: Sequence[float]) -> bool:
    return all(
        isinstance(value, int | float) and abs(value - other) < 1
        for value, other in zip(values, wanted, strict=True)
    )


def _find_metric_problem(config: Config) -> Iterator[Finding]:
    """Checks that ``save_best`` names a metric of the evaluators."""
    hook = (config.get('default_hooks') or {}).get('checkpoint') or {}
    wanted = hook.get('save_best')
    names = [_name_metrics(each) for _, each in every_evaluator(config, 'val')]
    if not wanted or not names or None in names:
        return
    known = [name for each in names for name in each]
    for each in [wanted] if isinstance(wanted, str) else wanted:
        if each != 'auto' and each not in known and not each.endswith('_precision'):
            yield Finding(
                f'default_hooks.checkpoint.save_best is {each!r}, but val_evaluator gives '
                f'{shorten(known)}: write one of these, or auto for the first'
            )


def _name_metrics(evaluator: Any) -> list[str] | None:
    """Lists the names of an evaluator's metrics; None if they are unknown."""
    if not isinstance(evaluator, dict) or evaluator.get('metric_items'):
        return None
    kind = type_name(evaluator)
    prefix = evaluator.get('prefix')
    if kind == 'CocoMetric':
        metrics = evaluator.get('metric', 'bbox')
        metrics = [metrics] if isinstance(metrics, str) else metrics
        if not set(metrics) <= {'bbox', 'segm', 'proposal', 'proposal_fast'}:
            return None
        items = {metric: [f'{metric}_{item}' for item in COCO_ITEMS] for metric in metrics}
        numbers = evaluator.get('proposal_nums', (100, 300, 1000))
        items |= {'proposal': list(PROPOSAL_ITEMS), 'proposal_fast': [f'AR@{n}' for n in numbers]}
        names = list(dict.fromkeys(name for metric in metrics for name in items[metric]))
        prefix = prefix or 'coco'
    elif kind == 'IoUMetric':
        metrics = evaluator.get('iou_metrics', ['mIoU'])
        if not set(metrics) <= IOU_NAMES.keys():
            return None
        names = list(dict.fromkeys(name for metric in metrics for name in IOU_NAMES[metric]))
    else:
        return None
    return [f'{prefix}/{name}' for name in names] if prefix else names


def _find_long_schedules(config: Config) -> Iterator[Finding]:
    """Finds schedules longer than the run, so that the learning rate falls less than intended."""
    run = config.get('train_cfg') or {}
    schedulers = config.get('param_scheduler') or []
    schedulers = [schedulers] if isinstance(schedulers, dict) else schedulers
    for index, scheduler in enumerate(schedulers):
        by_epoch = scheduler.get('by_epoch', True)
        unit, key = ('epoch', 'max_epochs') if by_epoch else ('iteration', 'max_iters')
        length = run.get(key)
        milestones = scheduler.get('milestones')
        end = scheduler.get('end')
        if not isinstance(length, int) or scheduler.get('begin', 0) >= length:
            continue
        place = f'param_scheduler.{index} ({type_name(scheduler)})'
        if milestones and min(milestones) >= length:
            text = f'{place} has its first milestone at {unit} {min(milestones)}'
        elif not milestones and isinstance(end, int) and end > length:
            text = f'{place} ends at {unit} {end}'
        else:
            continue
        yield Finding(
            f'{text}, but train_cfg.{key} is {length}: the learning rate does not fall as intended',
            is_error=False,
        )
