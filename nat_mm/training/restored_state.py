"""Validates the state that a checkpoint has restored before a training run continues with it.

mmengine copies a checkpoint's contents into the runner unchecked, including paths of files that it
will delete. Here, a damaged, malicious or incompatible state is rejected with a one-line message,
and only the run's own checkpoints are ever deleted.
"""

import functools
import math
import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer, MessageHub

from nat_mm.compat.outdated_checkpoints import OUTDATED
from nat_mm.errors import CheckpointError, brief, one_line
from nat_mm.training.checkpoint_hook import find_checkpoint_hook
from nat_mm.training.interrupted_epochs import INTERRUPTED
from nat_mm.wrappers import list_optim_wrappers

_LARGEST_COUNT = 2**53
"""Largest number of iterations; larger ones are not exact as floating-point numbers."""


class _InvalidStateError(Exception):
    """The restored state cannot continue the training run; the message says why."""


def check_after_resuming(runner_class: Any) -> None:
    """Makes a runner say in one line why it cannot resume from a checkpoint.

    Its ``resume`` raises CheckpointError if the checkpoint's contents cannot continue the training
    run, and OSError if the file cannot be opened or downloaded.

    Args:
        runner_class: mmengine's ``Runner`` or ``FlexibleRunner``.
    """
    resume = runner_class.resume

    @functools.wraps(resume)
    def resume_and_check(self, filename: str, *args, **kwargs) -> None:
        schedules = _schedules(self)
        _keep_seed_to_itself(self)
        try:
            resume(self, filename, *args, **kwargs)
            _check_state(self, schedules)
        except (OSError, CheckpointError):
            raise
        except _InvalidStateError as error:
            raise CheckpointError(f'cannot resume from {filename}: {error}') from None
        except Exception as error:
            # Anything in a file can be missing or have an unexpected type.
            raise CheckpointError(
                f'cannot resume from {filename}: {type(error).__name__}: {one_line(error)}'
            ) from error

    runner_class.resume = resume_and_check


def _keep_seed_to_itself(runner: Any) -> None:
    """Copies settings first: mmengine writes the seed into a default that all runners share."""
    for owner, name in ((runner, '_randomness_cfg'), (vars(runner).get('strategy'), '_randomness')):
        if hasattr(owner, name):
            setattr(owner, name, dict(getattr(owner, name)))


def _schedules(runner: Any) -> list[dict[str, Any]]:
    """Returns the state of each learning rate or momentum scheduler."""
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, Mapping):
        schedulers = [each for several in schedulers.values() for each in several]
    return [dict(each.state_dict()) for each in schedulers if hasattr(each, 'state_dict')]


def _check_state(runner: Any, schedules: list[dict[str, Any]]) -> None:
    _check_counters(runner.train_loop)
    for restored, fresh in zip(_schedules(runner), schedules, strict=False):
        _check_schedule(restored, fresh)
    for wrapper in list_optim_wrappers(runner.optim_wrapper):
        _check_optimizer(wrapper.optimizer)
    _check_messages(runner.message_hub)
    # The records come last, since reading them relies on all the others.
    _check_records(runner)


def _check_counters(loop: Any) -> None:
    from mmengine.runner import IterBasedTrainLoop

    by_epoch = not isinstance(loop, IterBasedTrainLoop)
    for name, count, last in (
        ('epoch', loop._epoch, loop.max_epochs if by_epoch else _LARGEST_COUNT),
        ('iter', loop._iter, _LARGEST_COUNT if by_epoch else loop.max_iters),
    ):
        if type(count) is not int or not 0 <= count <= last:
            raise _InvalidStateError(
                f'{name} must be a whole number from 0 to {last}, got {brief(count)}'
            )


def _check_schedule(restored: dict[str, Any], fresh: dict[str, Any]) -> None:
    for name, value in restored.items():
        if name not in fresh:
            raise _InvalidStateError(f'param_schedulers have no {brief(name)}')
        if not _is_like(value, fresh[name]):
            raise _InvalidStateError(
                f'{name} of param_schedulers must be like {fresh[name]}, got {brief(value)}'
            )


def _is_like(value: Any, fresh: Any) -> bool:
    """Returns whether a value has the same kind as another one and is finite."""
    if isinstance(fresh, bool) or fresh is None or isinstance(fresh, str):
        return type(value) is type(fresh)
    if isinstance(fresh, int | float):
        return _is_finite(value)
    if isinstance(fresh, Mapping):
        return isinstance(value, Mapping) and _is_like([*value, *value.values()], [*fresh])
    if isinstance(fresh, list | tuple):
        pattern = next(iter(fresh), 0)
        return isinstance(value, list | tuple) and all(_is_like(each, pattern) for each in value)
    return type(value) is type(fresh)


def _is_finite(value: Any) -> bool:
    """Returns whether a value is a finite number, of Python, NumPy or PyTorch."""
    if getattr(value, 'shape', None) == ():
        value = value.item()
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for name, default in optimizer.defaults.items():
            if name not in group:
                raise _InvalidStateError(f'the optimizer has no {name}')
            if default is not None and not _is_like(group[name], default):
                raise _InvalidStateError(
                    f'{name} of the optimizer must be like {default}, got {brief(group[name])}'
                )
        for parameter in group['params']:
            for name, value in optimizer.state.get(parameter, {}).items():
                fits = value is None or _is_finite(value)
                if isinstance(value, torch.Tensor):
                    fits = value.shape == parameter.shape or value.numel() == 1
                if not fits:
                    raise _InvalidStateError(
                        f'{brief(name)} of the optimizer must be a number or of shape '
                        f'{list(parameter.shape)}, got {brief(value)}'
                    )


def _check_messages(hub: MessageHub) -> None:
    for part in (hub.log_scalars, hub.runtime_info):
        for name, value in part.items():
            if type(name) is not str:
                raise _invalid_message('the names', 'text', name)
            if part is hub.log_scalars and not isinstance(value, HistoryBuffer):
                raise _invalid_message(name, 'a HistoryBuffer', value)


def _invalid_message(name: str, wanted: str, value: Any) -> _InvalidStateError:
    return _InvalidStateError(f'{name} in message_hub must be {wanted}, got {brief(value)}')


def _check_records(runner: Any) -> None:
    """Checks what CheckpointHook and this package recorded in the message hub.

    Restricts what the hook deletes to what a run in this work directory wrote before.
    """
    info = runner.message_hub.runtime_info
    hook = find_checkpoint_hook(runner)
    folder = _checkpoint_folder(runner, hook)
    for name, value in info.items():
        if re.match(r'best_ckpt(_|$)', name) and value is not None:
            if not isinstance(value, str):
                raise _invalid_message(name, 'a path', value)
            # Work directories may be moved, so the folder in the path is ignored.
            file_name = os.path.basename(value)
            is_own = file_name.startswith('best_')
            info[name] = os.path.join(folder, file_name) if is_own else None
        if re.match(r'best_score(_|$)', name) and not _is_finite(value):
            raise _invalid_message(name, 'a number', value)
    kept = info.get('keep_ckpt_ids', [])
    if not isinstance(kept, list) or not all(map(_is_count, kept)):
        raise _invalid_message('keep_ckpt_ids', 'a list of whole numbers', kept)
    outdated = info.get(OUTDATED, [])
    if not isinstance(outdated, list) or not all(isinstance(name, str) for name in outdated):
        raise _invalid_message(OUTDATED, 'a list of names', outdated)
    if outdated:
        info[OUTDATED] = [name for name in outdated if _is_outdated(name, runner, hook)]
    place = info.get(INTERRUPTED, {})
    if not isinstance(place, dict) or not all(map(_is_count, place.values())):
        raise _invalid_message(INTERRUPTED, 'whole numbers', place)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _checkpoint_folder(runner: Any, hook: CheckpointHook | None) -> str:
    """Returns the folder that CheckpointHook writes to."""
    if hook is None or hook.out_dir in (None, runner.work_dir):
        return runner.work_dir
    return os.path.join(hook.out_dir, os.path.basename(runner.work_dir.rstrip(os.sep)))


def _is_outdated(name: str, runner: Any, hook: CheckpointHook | None) -> bool:
    """Returns whether the run itself would delete a checkpoint with that name."""
    step = re.fullmatch(r'(epoch|iter)_(\d+)\.pth', name)
    if step:
        number, reached = int(step[2]), runner.epoch if step[1] == 'epoch' else runner.iter
        is_limited = getattr(hook, 'max_keep_ckpts', -1) > 0
        return number == reached or (is_limited and number < reached)
    is_best = name.startswith('best_') and name == os.path.basename(name)
    return is_best and getattr(hook, 'save_best', None) is not None
