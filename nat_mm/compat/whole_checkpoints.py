"""mmengine writes checkpoints in place, so a kill or a full disk leaves a truncated file.

Here, a file is written under a temporary name next to its destination, synced to disk and renamed.
Only local files are written this way; storage services store whole objects anyway.
"""

import functools
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO

from nat_mm.compat import NOT_REPORTED

BROKEN_IN = {'mmengine': '<0.11'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmengine.runner.checkpoint',)
SUFFIX = '.unfinished'
"""Suffix of a file's name while it is being written; ``*.pth`` does not match it."""


class CheckpointWriteError(OSError):
    """A checkpoint could not be written, for example because the disk is full; none was lost."""


def repair(module: ModuleType) -> None:
    """Makes ``save_checkpoint`` write local files completely or not at all.

    Args:
        module: ``mmengine.runner.checkpoint``.
    """
    save_anywhere = module.save_checkpoint

    @functools.wraps(save_anywhere)
    def save_checkpoint(checkpoint, filename, file_client_args=None, backend_args=None):
        if _is_local(filename, file_client_args, backend_args):
            _save_local(checkpoint, filename)
        else:
            save_anywhere(checkpoint, filename, file_client_args, backend_args)

    # Modules that are already imported have their own references to the function.
    for name in ('mmengine.runner.checkpoint', 'mmengine.runner.runner', 'mmengine.runner'):
        if getattr(sys.modules.get(name), 'save_checkpoint', None) is save_anywhere:
            sys.modules[name].save_checkpoint = save_checkpoint


@contextmanager
def open_whole(path: str | os.PathLike, mode: str = 'wb', buffering: int = -1) -> Iterator[IO]:
    """Opens a file that appears at its destination only if the ``with`` block succeeds.

    Args:
        path: Destination of the file.
        mode: As for ``open``; a mode for writing.
        buffering: As for ``open``.

    Yields:
        The file, which lies next to its destination until then, and is removed if the block raises.
    """
    from nat_mm.files import whole_file

    place = Path(f'{path}{SUFFIX}')
    with (
        whole_file(Path(path), unfinished=place, synchronized=True),
        open(place, mode, buffering) as file,
    ):
        yield file


def _is_local(filename: str, file_client_args: dict | None, backend_args: dict | None) -> bool:
    from mmengine.fileio import FileClient, LocalBackend, get_file_backend

    if filename.startswith('pavi://') or (file_client_args and backend_args):
        return False  # left to mmengine, which handles or rejects these
    if file_client_args is None:
        return isinstance(get_file_backend(filename, backend_args=backend_args), LocalBackend)
    return isinstance(FileClient.infer_client(file_client_args, filename).client, LocalBackend)


def _save_local(checkpoint: dict, filename: str) -> None:
    import torch

    output = None
    try:
        with open_whole(filename, buffering=2**20) as file:
            output = CheckedOutput(file)
            torch.save(checkpoint, output)
            output.check()
    except OSError as error:
        message = f'cannot write checkpoint {filename}: {error.strerror or error}'
        if output is not None:
            folder = os.path.dirname(filename) or '.'
            free = shutil.disk_usage(folder).free
            message += f' ({output.size} bytes needed, {free} bytes free in {folder})'
        raise CheckpointWriteError(error.errno, message) from error


class CheckedOutput:
    """Receives what ``torch.save`` writes; an error stops the writing, but not the counting.

    PyTorch would turn a disk error into one about a position in its file.

    Args:
        file: Binary file.

    Attributes:
        size: Number of bytes to be written, including those that were not.
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
