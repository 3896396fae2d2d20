"""Resuming from a checkpoint that may be damaged or hostile, in mmengine's runners.

mmengine executes the config that a checkpoint holds as text, to compare the number of GPUs, and
puts what else it holds into the runner unseen, paths of files that it is going to delete among it.
Here that text is searched, not executed, the state that was restored is looked at before the
training run goes on with it, and nothing but the run's own checkpoints is ever deleted.
"""

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop

from nat_mm.compat.checkpoints import CheckpointError
from nat_mm.compat.interrupted_epochs import INTERRUPTED
from nat_mm.compat.whole_checkpoints import OUTDATED

_GPU_IDS = re.compile(r'^gpu_ids = [\[(]([\d, ]*)[\])]$', re.MULTILINE)
_LARGEST_COUNT = 2**53
"""Of iterations; larger ones are not exact as floating-point numbers."""


def resume_safely(resume: Callable, runner: Any, filename: str, *arguments, **options) -> None:
    """Resumes a training run, and says in one line why that is not possible.

    Args:
        resume: mmengine's own method.
        runner: The runner.
        filename: Path or URL of the checkpoint.
        *arguments: See mmengine.
        **options: See mmengine.

    Raises:
        CheckpointError: What the checkpoint holds does not continue this training run.
        OSError: The file cannot be opened or downloaded.
    """
    schedules = _schedules(runner)
    _keep_seed_to_itself(runner)
    try:
        with _config_text(_find_gpu_ids):
            resume(runner, filename, *arguments, **options)
        problem = _find_problem(runner, schedules) or _keep_to_own_checkpoints(runner)
    except (OSError, CheckpointError):
        raise
    except Exception as error:
        # Of what a file holds, anything can be missing or of another type.
        reason = ' '.join(str(error).split())[:300]
        raise CheckpointError(
            f'cannot resume from {filename}: {type(error).__name__}: {reason}'
        ) from error
    if problem:
        raise CheckpointError(f'cannot resume from {filename}: {problem}')


def build_without_config(build: Callable, inferencer: Any, *arguments, **options) -> Any:
    """Builds the model of an inferencer, whose config must not come from the checkpoint.

    Args:
        build: mmengine's own method.
        inferencer: The inferencer.
        *arguments: See mmengine.
        **options: See mmengine.

    Returns:
        The model.

    Raises:
        CheckpointError: There is no other config.
    """
    with _config_text(_refuse):
        return build(inferencer, *arguments, **options)


@contextmanager
def _config_text(read: Callable[[str], Config]) -> Iterator[None]:
    """Reads the text of a config by another function than mmengine's, which executes it."""
    execute = vars(Config)['fromstring']
    Config.fromstring = staticmethod(lambda cfg_str, file_format: read(cfg_str))
    try:
        yield
    finally:
        Config.fromstring = execute


def _find_gpu_ids(text: str) -> Config:
    """All that resuming asks of the old config."""
    found = _GPU_IDS.search(text)
    return Config({'gpu_ids': re.findall(r'\d+', found[1])} if found else {})


def _refuse(text: str) -> Config:
    raise CheckpointError(
        'the config inside a checkpoint is a program, which is not run. Give the config file, too: '
        "DetInferencer('config.py', weights='checkpoint.pth')"
    )


def _keep_seed_to_itself(runner: Any) -> None:
    """mmengine writes the seed of the checkpoint into a default that all runners share."""
    for owner, name in ((runner, '_randomness_cfg'), (vars(runner).get('strategy'), '_randomness')):
        if hasattr(owner, name):
            setattr(owner, name, dict(getattr(owner, name)))


def _schedules(runner: Any) -> list[dict[str, Any]]:
    """What each scheduler of learning rate or momentum has in it."""
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, Mapping):
        schedulers = [each for several in schedulers.values() for each in several]
    return [dict(each.state_dict()) for each in schedulers if hasattr(each, 'state_dict')]


def _find_problem(runner: Any, schedules: list[dict[str, Any]]) -> str | None:
    """What is wrong with the state that was restored."""
    problems = [
        _find_counter_problem(runner.train_loop),
        *map(_find_schedule_problem, _schedules(runner), schedules),
        *map(_find_optimizer_problem, _optimizers(runner.optim_wrapper)),
        _find_message_problem(runner.message_hub),
    ]
    return next(filter(None, problems), None)


def _find_counter_problem(loop: Any) -> str | None:
    by_epoch = not isinstance(loop, IterBasedTrainLoop)
    for name, count, last in (
        ('epoch', loop._epoch, loop.max_epochs if by_epoch else _LARGEST_COUNT),
        ('iter', loop._iter, _LARGEST_COUNT if by_epoch else loop.max_iters),
    ):
        if type(count) is not int or not 0 <= count <= last:
            return f'{name} must be a whole number from 0 to {last}, got {_brief(count)}'
    return None


def _find_schedule_problem(restored: dict[str, Any], fresh: dict[str, Any]) -> str | None:
    for name, value in restored.items():
        if name not in fresh:
            return f'param_schedulers have no {_brief(name)}'
        if not _is_like(value, fresh[name]):
            return f'{name} of param_schedulers must be like {fresh[name]}, got {_brief(value)}'
    return None


def _is_like(value: Any, fresh: Any) -> bool:
    """Whether a value is of the same kind as another one, and finite."""
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
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _optimizers(optim_wrapper: Any) -> list[torch.optim.Optimizer]:
    if isinstance(optim_wrapper, OptimWrapperDict):
        return [each.optimizer for each in optim_wrapper.values()]
    return [optim_wrapper.optimizer]


def _find_optimizer_problem(optimizer: torch.optim.Optimizer) -> str | None:
    for group in optimizer.param_groups:
        for name, default in optimizer.defaults.items():
            if name not in group:
                return f'the optimizer has no {name}'
            if default is not None and not _is_like(group[name], default):
                return f'{name} of the optimizer must be like {default}, got {_brief(group[name])}'
        for parameter in group['params']:
            for name, value in optimizer.state.get(parameter, {}).items():
                fits = value is None or _is_finite(value)
                if isinstance(value, torch.Tensor):
                    fits = value.shape == parameter.shape or value.numel() == 1
                if not fits:
                    return (
                        f'{_brief(name)} of the optimizer must be a number or of shape '
                        f'{list(parameter.shape)}, got {_brief(value)}'
                    )
    return None


def _find_message_problem(hub: MessageHub) -> str | None:
    for part in (hub.log_scalars, hub.runtime_info):
        for name, value in part.items():
            if type(name) is not str:
                return f'the names in message_hub must be text, got {_brief(name)}'
            if part is hub.log_scalars and not isinstance(value, HistoryBuffer):
                return f'{name} in message_hub must be a HistoryBuffer, got {_brief(value)}'
    return None


def _keep_to_own_checkpoints(runner: Any) -> str | None:
    """Limits what CheckpointHook deletes to what a run of this work dir wrote before.

    Returns:
        What is wrong with its notes in the message hub.
    """
    info = runner.message_hub.runtime_info
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    for name in [name for name in info if re.match(r'best_ckpt(_|$)', name)]:
        if info[name] is None:
            continue
        if not isinstance(info[name], str):
            return f'{name} in message_hub must be a path, got {_brief(info[name])}'
        # Work dirs are moved, so the folder that the path names does not count in any case.
        file_name = os.path.basename(info[name])
        own = os.path.join(_checkpoint_folder(runner, hook), file_name)
        info[name] = own if file_name.startswith('best_') else None
    for name in [name for name in info if re.match(r'best_score(_|$)', name)]:
        if not _is_finite(info[name]):
            return f'{name} in message_hub must be a number, got {_brief(info[name])}'
    kept = info.get('keep_ckpt_ids', [])
    if not isinstance(kept, list) or not all(type(step) is int and step >= 0 for step in kept):
        return f'keep_ckpt_ids in message_hub must be a list of whole numbers, got {_brief(kept)}'
    outdated = info.get(OUTDATED, [])
    if not isinstance(outdated, list) or not all(isinstance(name, str) for name in outdated):
        return f'{OUTDATED} in message_hub must be a list of names, got {_brief(outdated)}'
    if outdated:
        info[OUTDATED] = [name for name in outdated if _is_outdated(name, runner, hook)]
    interrupted = info.get(INTERRUPTED, {})
    if not isinstance(interrupted, dict) or not all(
        type(count) is int and count >= 0 for count in interrupted.values()
    ):
        return f'{INTERRUPTED} in message_hub must be whole numbers, got {_brief(interrupted)}'
    return None


def _checkpoint_folder(runner: Any, hook: CheckpointHook | None) -> str:
    """Where CheckpointHook writes."""
    if hook is None or hook.out_dir in (None, runner.work_dir):
        return runner.work_dir
    return os.path.join(hook.out_dir, os.path.basename(runner.work_dir.rstrip(os.sep)))


def _is_outdated(name: str, runner: Any, hook: CheckpointHook | None) -> bool:
    """Whether the run would delete a checkpoint of that name by itself."""
    step = re.fullmatch(r'(epoch|iter)_(\d+)\.pth', name)
    if step:
        number, reached = int(step[2]), runner.epoch if step[1] == 'epoch' else runner.iter
        is_limited = getattr(hook, 'max_keep_ckpts', -1) > 0
        return number == reached or (is_limited and number < reached)
    is_best = name.startswith('best_') and name == os.path.basename(name)
    return is_best and getattr(hook, 'save_best', None) is not None


def _brief(value: Any) -> str:
    """A value for a message, or its type where it may be large."""
    if value is None or isinstance(value, str | int | float):
        return repr(value)[:80]
    if isinstance(value, torch.Tensor):
        return f'a tensor of shape {list(value.shape)}'
    return f'a {type(value).__name__}'
