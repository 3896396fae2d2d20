"""Work directory of a training run: locks it for one run, and checks for free space."""

import fcntl
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from torch import nn

from nat_mm.compat.whole_checkpoints import CheckpointWriteError
from nat_mm.errors import DISK_ERRORS, FileWriteError, UserError
from nat_mm.training.console import LOG_FOLDERS

LOCK = '.training.lock'


class Start:
    """Says whether a run has started.

    Attributes:
        done: Whether its first iteration has been completed.
    """

    def __init__(self) -> None:
        self.done = False

    def note(self) -> None:
        """Notes that the run has started."""
        self.done = True


@contextmanager
def untouched_before_start(work_dir: str, *, config_file: str | None) -> Iterator[Start]:
    """Undoes what a run wrote to its work directory if it fails before it has started.

    That is the folder itself, with the parents that it needed, this process's log folder and the
    config that mmengine writes. Whatever other processes write there stays.

    Args:
        work_dir: The folder; it need not exist.
        config_file: Name of the config, which mmengine writes to the folder.

    Yields:
        Where to note that the run has started.

    Raises:
        UserError: If the folder cannot be read.
    """
    start = Start()
    folder = Path(os.path.abspath(work_dir))
    config = folder / os.path.basename(config_file) if config_file else None
    try:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        before = set(folder.iterdir()) if folder.is_dir() else set()
        content = config.read_bytes() if config and config.is_file() else None
    except OSError as error:
        raise UserError(f'cannot use {work_dir} as work dir: {_explain(error)}') from error
    try:
        yield start
    except SystemExit:
        raise  # by which a run stops on a signal
    except BaseException:
        if not start.done:
            # What cannot be undone must not hide why the run failed.
            with suppress(OSError):
                _undo(folder, before, config, content)
            for each in missing:
                with suppress(OSError):
                    each.rmdir()
        raise


def _undo(folder: Path, before: set[Path], config: Path | None, content: bytes | None) -> None:
    if config and content is None:
        config.unlink(missing_ok=True)
    elif config and config.read_bytes() != content:
        config.write_bytes(content)
    for each in set(folder.iterdir()) - before:
        if each in LOG_FOLDERS:
            shutil.rmtree(each)
        elif each.is_dir() and not any(each.iterdir()):  # nothing was logged yet
            each.rmdir()


@contextmanager
def occupied_work_dir(work_dir: str, *, config_file: str | None = None) -> Iterator[Start]:
    """Keeps other training runs out of a work directory inside the ``with`` block.

    The lock is a kernel lock, so it ends with this process, however that ends. It applies to all
    processes on one machine, and across machines if the network file system supports locks
    (NFS 4, and Lustre mounted with ``flock``); otherwise a warning is printed. Processes forked by
    a data loader do not hold the lock.

    Args:
        work_dir: The folder, created if necessary. If the block fails before the run has started,
            it is left as it was; see `untouched_before_start`.
        config_file: Name of the config, which mmengine writes to the folder.

    Yields:
        Where to note that the run has started.

    Raises:
        UserError: If another run uses the folder, or nothing can be written there.
    """
    with untouched_before_start(work_dir, config_file=config_file) as start:
        place = Path(work_dir, LOCK)
        try:
            os.makedirs(work_dir, exist_ok=True)
            is_new = not place.exists()
            file = _open_lock(place)
        except OSError as error:
            raise UserError(f'cannot use {work_dir} as work dir: {_explain(error)}') from error
        with file:
            file.seek(0)
            before = file.read()
            try:
                _write_owner(file, work_dir)
                yield start
            except SystemExit:
                raise
            except BaseException:
                with suppress(OSError):
                    if not start.done and is_new:
                        place.unlink(missing_ok=True)
                    elif not start.done:
                        _write(file, before)
                raise


def _open_lock(place: Path) -> IO[str]:
    """Opens and locks the file of a work directory.

    Raises:
        UserError: If another run has locked it.
    """
    while True:
        file = open(place, 'a+')  # noqa: SIM115
        try:
            _lock(file, str(place.parent))
            # A run that has just failed may have removed the file before it was locked here.
            if place.exists() and os.path.samestat(os.fstat(file.fileno()), place.stat()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


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


def _write_owner(file: IO[str], work_dir: str) -> None:
    started = time.strftime('%Y-%m-%d %H:%M:%S')
    try:
        _write(file, f'process {os.getpid()} on {socket.gethostname()} since {started}\n')
    except OSError as error:
        raise UserError(
            f'cannot use {work_dir} as work dir: {file.name}: {error.strerror}'
        ) from error


def _write(file: IO[str], text: str) -> None:
    file.truncate(0)
    # Past the buffer, which would be written again when the file is closed.
    os.write(file.fileno(), text.encode())


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
def disk_mistakes(*places: str, advice: str = '') -> Iterator[None]:
    """Turns exceptions about a full or read-only disk into user errors.

    Args:
        *places: Work directory of the run inside the ``with`` block, and other files and folders
            that it writes.
        advice: What to do, to be appended to the message.

    Raises:
        UserError: If the disk is full, or a checkpoint or another file cannot be written for
            another reason.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, CheckpointWriteError):
            problem = error.strerror
        elif isinstance(error, FileWriteError) or error.errno in DISK_ERRORS:
            place = error.filename or f'to {" or ".join(places)}'
            problem = f'cannot write {place}: {error.strerror}'
        else:
            raise
        raise UserError(f'{problem}. {advice}' if advice else problem) from error
