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
            problem = _find_problem(self, schedules)
        except (OSError, CheckpointError):
            raise
        except Exception as error:
            # Anything in a file can be missing or have an unexpected type.
            raise CheckpointError(
                f'cannot resume from {filename}: {type(error).__name__}: {one_line(error)}'
            ) from error
        if problem:
            raise CheckpointError(f'cannot resume from {filename}: {problem}')

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


def _find_problem(runner: Any, schedules: list[dict[str, Any]]) -> str | None:
    """Returns what is wrong with the restored state, or None."""
    problems = [
        _find_counter_problem(runner.train_loop),
        *map(_find_schedule_problem, _schedules(runner), schedules),
        *(
            _find_optimizer_problem(each.optimizer)
            for each in list_optim_wrappers(runner.optim_wrapper)
        ),
        _find_message_problem(runner.message_hub),
    ]
    # The records come last, since reading them relies on all the others.
    return next(filter(None, problems), None) or _find_record_problem(runner)


def _find_counter_problem(loop: Any) -> str | None:
    from mmengine.runner import IterBasedTrainLoop

    by_epoch = not isinstance(loop, IterBasedTrainLoop)
    for name, count, last in (
        ('epoch', loop._epoch, loop.max_epochs if by_epoch else _LARGEST_COUNT),
        ('iter', loop._iter, _LARGEST_COUNT if by_epoch else loop.max_iters),
    ):
        if type(count) is not int or not 0 <= count <= last:
            return f'{name} must be a whole number from 0 to {last}, got {brief(count)}'
    return None


def _find_schedule_problem(restored: dict[str, Any], fresh: dict[str, Any]) -> str | None:
    for name, value in restored.items():
        if name not in fresh:
            return f'param_schedulers have no {brief(name)}'
        if not _is_like(value, fresh[name]):
            return f'{name} of param_schedulers must be like {fresh[name]}, got {brief(value)}'
    return None


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


def _find_optimizer_problem(optimizer: torch.optim.Optimizer) -> str | None:
    for group in optimizer.param_groups:
        for name, default in optimizer.defaults.items():
            if name not in group:
                return f'the optimizer has no {name}'
            if default is not None and not _is_like(group[name], default):
                return f'{name} of the optimizer must be like {default}, got {brief(group[name])}'
        for parameter in group['params']:
            for name, value in optimizer.state.get(parameter, {}).items():
                fits = value is None or _is_finite(value)
                if isinstance(value, torch.Tensor):
                    fits = value.shape == parameter.shape or value.numel() == 1
                if not fits:
                    return (
                        f'{brief(name)} of the optimizer must be a number or of shape '
                        f'{list(parameter.shape)}, got {brief(value)}'
                    )
    return None


def _find_message_problem(hub: MessageHub) -> str | None:
    for part in (hub.log_scalars, hub.runtime_info):
        for name, value in part.items():
            if type(name) is not str:
                return f'the names in message_hub must be text, got {brief(name)}'
            if part is hub.log_scalars and not isinstance(value, HistoryBuffer):
                return f'{name} in message_hub must be a HistoryBuffer, got {brief(value)}'
    return None


def _find_record_problem(runner: Any) -> str | None:
    """Checks what CheckpointHook and this package recorded in the message hub.

    Restricts what the hook deletes to what a run in this work directory wrote before.
    """
    info = runner.message_hub.runtime_info
    hook = find_checkpoint_hook(runner)
    return (
        _find_best_checkpoint_problem(info, _checkpoint_folder(runner, hook))
        or _find_best_score_problem(info)
        or _find_kept_problem(info)
        or _find_outdated_problem(info, runner, hook)
        or _find_interruption_problem(info)
    )


def _find_best_checkpoint_problem(info: dict[str, Any], folder: str) -> str | None:
    for name in [name for name in info if re.match(r'best_ckpt(_|$)', name)]:
        if info[name] is None:
            continue
        if not isinstance(info[name], str):
            return f'{name} in message_hub must be a path, got {brief(info[name])}'
        # Work directories may be moved, so the folder in the path is ignored.
        file_name = os.path.basename(info[name])
        is_own = file_name.startswith('best_')
        info[name] = os.path.join(folder, file_name) if is_own else None
    return None


def _find_best_score_problem(info: dict[str, Any]) -> str | None:
    for name, score in info.items():
        if re.match(r'best_score(_|$)', name) and not _is_finite(score):
            return f'{name} in message_hub must be a number, got {brief(score)}'
    return None


def _find_kept_problem(info: dict[str, Any]) -> str | None:
    kept = info.get('keep_ckpt_ids', [])
    if isinstance(kept, list) and all(map(_is_count, kept)):
        return None
    return f'keep_ckpt_ids in message_hub must be a list of whole numbers, got {brief(kept)}'


def _find_outdated_problem(
    info: dict[str, Any], runner: Any, hook: CheckpointHook | None
) -> str | None:
    outdated = info.get(OUTDATED, [])
    if not isinstance(outdated, list) or not all(isinstance(name, str) for name in outdated):
        return f'{OUTDATED} in message_hub must be a list of names, got {brief(outdated)}'
    if outdated:
        info[OUTDATED] = [name for name in outdated if _is_outdated(name, runner, hook)]
    return None


def _find_interruption_problem(info: dict[str, Any]) -> str | None:
    place = info.get(INTERRUPTED, {})
    if isinstance(place, dict) and all(map(_is_count, place.values())):
        return None
    return f'{INTERRUPTED} in message_hub must be whole numbers, got {brief(place)}'


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
