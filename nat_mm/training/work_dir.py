"""Work directory of a training run: locks it for one run, and checks for free space."""

import fcntl
import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, EFBIG, ENOSPC, EROFS
from pathlib import Path
from typing import IO

from torch import nn

from nat_mm.compat.whole_checkpoints import CheckpointWriteError
from nat_mm.errors import UserError

LOCK = '.training.lock'


@contextmanager
def occupied_work_dir(work_dir: str) -> Iterator[None]:
    """Keeps other training runs out of a work directory inside the ``with`` block.

    The lock is a kernel lock, so it ends with this process, however that ends. It applies to all
    processes on one machine, and across machines if the network file system supports locks
    (NFS 4, and Lustre mounted with ``flock``); otherwise a warning is printed. Processes forked by
    a data loader do not hold the lock.

    Args:
        work_dir: The folder, created if necessary.

    Raises:
        UserError: If another run uses the folder, or nothing can be written there.
    """
    try:
        os.makedirs(work_dir, exist_ok=True)
        file = open(os.path.join(work_dir, LOCK), 'a+')  # noqa: SIM115
    except OSError as error:
        raise UserError(f'cannot use {work_dir} as work dir: {_explain(error)}') from error
    with file:
        _lock(file, work_dir)
        yield


def _lock(file: IO[str], work_dir: str) -> None:
    try:
        # Not flock, because forked processes would hold that lock for as long as they live.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        owner = ' '.join(file.read(300).split()) or 'another process'
        raise UserError(
            f'work dir {work_dir} is in use by a training run, {owner}; wait for it or stop it, or '
            'choose another folder with --work-dir'
        ) from None
    except OSError as error:
        print(
            f'warning: {work_dir} cannot be locked ({error.strerror}): do not start a second '
            'training run there',
            file=sys.stderr,
        )
    started = time.strftime('%Y-%m-%d %H:%M:%S')
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()} since {started}\n')
    file.flush()


def _explain(error: OSError) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        path = Path(error.filename)
        file = next((place for place in (path, *path.parents) if place.is_file()), path)
        return f'{file} is a file'
    return f'{error.filename}: {error.strerror}'


def check_free_space(model: nn.Module, work_dir: str) -> None:
    """Checks that there is room for at least the weights of a checkpoint.

    Args:
        model: Model to be trained.
        work_dir: Folder of its checkpoints.

    Raises:
        UserError: If the weights alone need more than the free space.
    """
    needed = sum(weight.nbytes for weight in model.state_dict().values())
    free = shutil.disk_usage(work_dir).free
    if free < needed:
        raise UserError(
            f'the disk of {work_dir} is too full for a checkpoint: {free} bytes are free, and the '
            f'weights alone need {needed}'
        )


@contextmanager
def disk_mistakes(work_dir: str) -> Iterator[None]:
    """Turns exceptions about a full or read-only disk into user errors.

    Args:
        work_dir: Folder of the run inside the ``with`` block.

    Raises:
        UserError: If the disk is full, or a checkpoint cannot be written for another reason.
    """
    # If the log cannot be written, a traceback per line would hide what matters.
    raise_exceptions, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    except OSError as error:
        if isinstance(error, CheckpointWriteError):
            problem = error.strerror
        elif error.errno in (ENOSPC, EDQUOT, EFBIG, EROFS):
            problem = f'cannot write {error.filename or f"to {work_dir}"}: {error.strerror}'
        else:
            raise
        raise UserError(
            f'{problem}. Earlier checkpoints are intact: free space, then continue with --resume'
        ) from error
    finally:
        logging.raiseExceptions = raise_exceptions
