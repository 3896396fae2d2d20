"""mmengine deletes an outdated checkpoint before it writes the new one that replaces it.

A run killed in between loses a checkpoint; with ``max_keep_ckpts=1``, it loses all of them. The
file ``last_checkpoint`` is also written in place, and can be lost in the same way.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from nat_mm.compat import NOT_REPORTED
from nat_mm.compat.whole_checkpoints import SUFFIX, open_whole

BROKEN_IN = {'mmengine': '<0.11'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmengine.hooks.checkpoint_hook',)
OUTDATED = 'outdated_checkpoints'
"""Key under which the message hub, and thus each checkpoint, lists the files that it replaces."""


def repair(module: ModuleType) -> None:
    """Makes CheckpointHook delete checkpoints only after their replacements are written.

    Args:
        module: ``mmengine.hooks.checkpoint_hook``.
    """
    hook_class = module.CheckpointHook
    for name in ('_save_checkpoint_with_step', '_save_best_checkpoint'):
        setattr(hook_class, name, _delete_after(getattr(hook_class, name)))
    before_train = hook_class.before_train

    @functools.wraps(before_train)
    def clean_before_train(self, runner) -> None:
        from mmengine.dist import is_main_process
        from mmengine.fileio import LocalBackend

        before_train(self, runner)
        if is_main_process():
            _remove_unfinished(runner.work_dir)
            if isinstance(getattr(self.file_backend, 'client', self.file_backend), LocalBackend):
                _remove_unfinished(self.out_dir)

    hook_class.before_train = clean_before_train
    # The only file that the module opens is last_checkpoint.
    module.open = open_whole


def note_outdated(message_hub: Any, path: str) -> None:
    """Schedules a checkpoint for deletion once CheckpointHook has written the next one.

    Args:
        message_hub: The runner's message hub.
        path: Path of the checkpoint, in the hook's folder.
    """
    outdated = message_hub.runtime_info.get(OUTDATED, [])
    message_hub.update_info(OUTDATED, [*outdated, os.path.basename(path)])


def _remove_unfinished(folder: str) -> None:
    """Removes half-written files that a killed run left behind."""
    for path in Path(folder).glob(f'*{SUFFIX}'):
        path.unlink(missing_ok=True)


def _delete_after(save: Callable[..., None]) -> Callable[..., None]:
    """Makes a method of CheckpointHook that deletes and writes do so in the opposite order."""

    @functools.wraps(save)
    def save_first(self, runner, *args, **kwargs) -> None:
        from mmengine.dist import barrier

        if isinstance(self.file_backend, _PostponedDeletion):  # one method calls the other
            return save(self, runner, *args, **kwargs)
        backend = self.file_backend
        self.file_backend = _PostponedDeletion(backend, runner.message_hub)
        try:
            save(self, runner, *args, **kwargs)
        finally:
            self.file_backend = backend
        barrier()  # each process may write a part
        _delete_outdated(self, runner.message_hub)

    return save_first


class _PostponedDeletion:
    """File backend of a CheckpointHook that records deletions instead of performing them.

    Since the record is part of the next checkpoint, a run that is killed between writing and
    deleting deletes the outdated file when it is resumed.
    """

    def __init__(self, backend: Any, message_hub: Any):
        self._backend = backend
        self._message_hub = message_hub

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        note_outdated(self._message_hub, path)

    rmtree = remove


def _delete_outdated(hook: Any, message_hub: Any) -> None:
    from mmengine.dist import is_main_process

    outdated = message_hub.runtime_info.get(OUTDATED)
    if not outdated:
        return
    best = getattr(hook, 'best_ckpt_path', None)
    needed = [hook.last_ckpt, best, *getattr(hook, 'best_ckpt_path_dict', {}).values()]
    needed += [hook.filename_tmpl.format(step) for step in getattr(hook, 'keep_ckpt_ids', ())]
    needed = {os.path.basename(path) for path in needed if path}
    if is_main_process():
        for name in set(outdated) - needed:
            path = hook.file_backend.join_path(hook.out_dir, name)
            if hook.file_backend.isfile(path):
                hook.file_backend.remove(path)
            elif hook.file_backend.isdir(path):  # from DeepSpeed or sharded FSDP
                hook.file_backend.rmtree(path)
    message_hub.update_info(OUTDATED, [name for name in outdated if name in needed])
