"""Checkpoints that a kill or a full disk cannot take away.

mmengine deletes the checkpoint that a new one replaces before it writes the new one, and writes it
and the note ``last_checkpoint`` in place: whoever is killed in between has lost a checkpoint, with
``max_keep_ckpts=1`` all of them. Here a file is written beside its place, synchronized with the
disk and renamed, and what it replaces is deleted last. Only local files are written in this way;
storage services put whole objects themselves.
"""

import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import torch

SUFFIX = '.unfinished'
"""What a file is called behind its name while it is written; no glob for ``*.pth`` finds it."""

OUTDATED = 'outdated_checkpoints'
"""Where the message hub, and with it every checkpoint, names the files that it replaces."""


class CheckpointWriteError(OSError):
    """A checkpoint could not be written, for example because the disk is full; none was lost."""


@contextmanager
def whole_file(path: str | os.PathLike, mode: str = 'wb', buffering: int = -1) -> Iterator[IO]:
    """Open a file that appears at its place when the ``with`` block has ended well.

    Args:
        path: The file's place. Its folder has to exist.
        mode: As for ``open``, to write.
        buffering: As for ``open``.

    Yields:
        The file, which lies beside its place until then; removed when the block raises.
    """
    unfinished = f'{path}{SUFFIX}'
    try:
        with open(unfinished, mode, buffering) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(unfinished)
        raise
    _synchronize_folder(os.path.dirname(path) or '.')


def _synchronize_folder(folder: str) -> None:
    # Not every file system can; the files themselves are safe by now.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def save_whole(checkpoint_module: ModuleType) -> None:
    """Let mmengine's ``save_checkpoint`` write local files whole or not at all.

    Args:
        checkpoint_module: ``mmengine.runner.checkpoint``.
    """
    save_anywhere = checkpoint_module.save_checkpoint

    @functools.wraps(save_anywhere)
    def save_checkpoint(checkpoint, filename, file_client_args=None, backend_args=None):
        if _is_local(filename, file_client_args, backend_args):
            _save_local(checkpoint, filename)
        else:
            save_anywhere(checkpoint, filename, file_client_args, backend_args)

    # Those of them that are imported already have the function under their own name, too.
    for name in ('mmengine.runner.checkpoint', 'mmengine.runner.runner', 'mmengine.runner'):
        if getattr(sys.modules.get(name), 'save_checkpoint', None) is save_anywhere:
            sys.modules[name].save_checkpoint = save_checkpoint


def _is_local(filename: str, file_client_args: dict | None, backend_args: dict | None) -> bool:
    from mmengine.fileio import FileClient, LocalBackend, get_file_backend

    if filename.startswith('pavi://') or (file_client_args and backend_args):
        return False  # which mmengine handles or refuses
    if file_client_args is None:
        return isinstance(get_file_backend(filename, backend_args=backend_args), LocalBackend)
    return isinstance(FileClient.infer_client(file_client_args, filename).client, LocalBackend)


def _save_local(checkpoint: dict, filename: str) -> None:
    folder = os.path.dirname(filename) or '.'
    output = None
    try:
        os.makedirs(folder, exist_ok=True)
        with whole_file(filename, buffering=2**20) as file:
            output = _Output(file)
            torch.save(checkpoint, output)
            output.check()
    except OSError as error:
        message = f'cannot write checkpoint {filename}: {error.strerror or error}'
        if output is not None:
            free = shutil.disk_usage(folder).free
            message += f' ({output.size} bytes needed, {free} bytes free in {folder})'
        raise CheckpointWriteError(error.errno, message) from error


class _Output:
    """Takes what ``torch.save`` writes; an error stops the writing, but not the counting.

    PyTorch would turn an error of the disk into one about a position in its file.

    Args:
        file: Binary file.

    Attributes:
        size: Bytes that were to be written.
    """

    def __init__(self, file: IO):
        self.size = 0
        self._file = file
        self._error = None

    def write(self, content: bytes) -> int:
        self.size += len(content)
        try:
            if self._error is None:
                self._file.write(content)
        except OSError as error:
            self._error = error
        return len(content)

    def flush(self) -> None:
        pass

    def check(self) -> None:
        if self._error is not None:
            raise self._error


def delete_last(hook_module: ModuleType) -> None:
    """Let mmengine's CheckpointHook delete checkpoints after those that replace them are written.

    Args:
        hook_module: ``mmengine.hooks.checkpoint_hook``.
    """
    hook_class = hook_module.CheckpointHook
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
    # The one file that the module opens is the note last_checkpoint.
    hook_module.open = whole_file


def _remove_unfinished(folder: str) -> None:
    """Remove what a killed run has left half written."""
    for path in Path(folder).glob(f'*{SUFFIX}'):
        path.unlink(missing_ok=True)


def _delete_after(save: Callable[..., None]) -> Callable[..., None]:
    """Make a method of CheckpointHook that writes and deletes do so in this order."""

    @functools.wraps(save)
    def save_first(self, runner, *args, **kwargs) -> None:
        from mmengine.dist import barrier

        if isinstance(self.file_backend, _PostponedDeletion):  # one of the methods calls the other
            return save(self, runner, *args, **kwargs)
        backend = self.file_backend
        self.file_backend = _PostponedDeletion(backend, runner.message_hub)
        try:
            save(self, runner, *args, **kwargs)
        finally:
            self.file_backend = backend
        barrier()  # each process may have written a part
        _delete_outdated(self, runner.message_hub)

    return save_first


class _PostponedDeletion:
    """The file backend of a CheckpointHook, but for deletions, which it only notes.

    Since the note is part of the checkpoint that is written next, a run that is killed between the
    two deletes the outdated file when it is resumed.
    """

    def __init__(self, backend: Any, message_hub: Any):
        self._backend = backend
        self._message_hub = message_hub

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        note_outdated(self._message_hub, path)

    rmtree = remove


def note_outdated(message_hub: Any, path: str) -> None:
    """Have a checkpoint deleted when CheckpointHook has written the next one.

    Args:
        message_hub: That of the runner.
        path: The checkpoint, in the folder of the hook.
    """
    outdated = message_hub.runtime_info.get(OUTDATED, [])
    message_hub.update_info(OUTDATED, [*outdated, os.path.basename(path)])


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
            elif hook.file_backend.isdir(path):  # of DeepSpeed, or of FSDP in parts
                hook.file_backend.rmtree(path)
    message_hub.update_info(OUTDATED, [name for name in outdated if name in needed])
