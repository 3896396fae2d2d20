"""Reads checkpoints, also for mmengine's loader, so that no file runs code or causes a traceback.

Files are read with ``torch.load(weights_only=True)``, PyTorch's default, which rejects everything
but tensors and plain containers. Other objects that mmengine saves are rebuilt by
:mod:`nat_mm.compat.saved_objects`.
"""

import os
import re
import zipfile
from collections.abc import Callable
from pickle import UnpicklingError
from typing import TypeVar

from nat_mm.compat.saved_objects import restore, saved_objects_allowed
from nat_mm.errors import CheckpointError, one_line

Content = TypeVar('Content')

_REFUSED_GLOBAL = re.compile(r'[Uu]nsupported (?:global: )?GLOBAL ([\w.]+)|GLOBAL ([\w.]+) whose')
_LARGEST_RATIO = 10
"""Largest ratio of content size to file size; PyTorch does not compress, so its files have 1."""


def read_safely(filename: str, load: Callable[[], Content]) -> Content:
    """Reads a checkpoint; errors say in one line what is wrong with it.

    Args:
        filename: Path or URL of the checkpoint, for messages.
        load: Reads it with ``torch.load``.

    Returns:
        Its contents, as copied by :func:`restore`.

    Raises:
        CheckpointError: If it contains code (which was not run), is damaged or is not a checkpoint.
        OSError: If it cannot be opened or downloaded.
    """
    path = os.path.expanduser(filename)
    is_file = os.path.isfile(path)
    try:
        if is_file:
            _check_not_inflating(path)
        with saved_objects_allowed():
            return restore(load())
    except (FileNotFoundError, PermissionError, CheckpointError):
        raise
    except Exception as error:
        # A damaged file can make the unpickler raise any exception.
        if not is_file and not isinstance(error, UnpicklingError | RuntimeError | EOFError):
            raise
        refused = _REFUSED_GLOBAL.search(str(error))
        reason = one_line(error)
        if refused:
            raise CheckpointError(
                f'checkpoint {filename} is refused: reading it would run or build '
                f'{refused[1] or refused[2]}, which is neither a weight nor something mmengine '
                'saves. Nothing of it was run. If you trust its source, allow that name with '
                'torch.serialization.add_safe_globals.'
            ) from None
        if isinstance(error, RuntimeError) and not _tells_of_damage(reason):
            raise CheckpointError(f'checkpoint {filename} cannot be read: {reason}') from error
        size = f' ({os.path.getsize(path)} bytes)' if is_file else ''
        raise CheckpointError(
            f'checkpoint {filename}{size} is truncated, damaged, or not a checkpoint that PyTorch '
            'can read safely.'
        ) from None


def _check_not_inflating(path: str) -> None:
    """Rejects a small file that would fill the memory."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > _LARGEST_RATIO * os.path.getsize(path):
        raise CheckpointError(
            f'checkpoint {path} is refused: its {os.path.getsize(path)} bytes would become {size}.'
        )


def _tells_of_damage(reason: str) -> bool:
    words = ('corrupted', 'not a ZIP archive', 'PytorchStreamReader')
    return any(each in reason for each in words)
