"""Finds the checkpoint from which a training run resumes, and checks that it can."""

import os
import sys
from pathlib import Path
from typing import Any

from nat_mm.errors import UserError
from nat_mm.inference.checkpoint import read_for_model

NOTE = 'last_checkpoint'
"""File in a work directory in which mmengine records the checkpoint that it wrote last."""

_LONGEST_PATH = 4096


def find_last_checkpoint(
    work_dir: str, *, resumable: bool = True, schedulers: bool = True, quiet: bool = False
) -> tuple[str, dict[str, Any]] | None:
    """Reads the newest readable checkpoint in a work directory.

    The one named in the file last_checkpoint comes first, then the others from newest to oldest.
    Checkpoints of the best epoch, which contain no training state, are skipped.

    Args:
        work_dir: Work directory of the run.
        resumable: Whether to accept only checkpoints from which training can resume.
        schedulers: Whether the run has schedulers, whose state it then needs to resume.
        quiet: Whether not to report skipped checkpoints on stderr.

    Returns:
        Its path and the result of `read_for_model`; None if no run has written a checkpoint there.

    Raises:
        UserError: If none is usable although last_checkpoint exists or a checkpoint cannot be read.
    """
    sources = [str(path) for path in _newest_first(work_dir)]
    complaints, has_run = [], False
    try:
        noted = _read_note(work_dir)
    except ValueError as error:
        complaints, has_run = [str(error)], True
    else:
        if noted is not None:
            sources, has_run = list(dict.fromkeys([noted, *sources])), True
    for source in sources:
        try:
            checkpoint = read_for_model(source)
        except UserError as error:
            complaints.append(str(error).rstrip('.'))
            has_run = True
            continue
        absent = _find_absent_state(checkpoint, schedulers=schedulers) if resumable else []
        if absent:
            complaints.append(f'{source}: it has no {", ".join(absent)}')
            continue
        if not quiet:
            for complaint in complaints:
                print(f'warning: passed over {complaint}', file=sys.stderr)
        return source, checkpoint
    if not has_run:
        # The files are weights that were not written by a run.
        return None
    raise UserError(
        f'no checkpoint in {work_dir} can be used: {"; ".join(complaints)}. Name another one, or '
        'start over in another work dir'
    )


def check_resumable(checkpoint: dict[str, Any], *, source: str, schedulers: bool) -> None:
    """Checks that a checkpoint contains the state of a training run, not only weights.

    Args:
        checkpoint: Result of `read_for_model`.
        source: Origin of the checkpoint, for the message.
        schedulers: Whether the run has schedulers. mmengine would start them anew without a word.

    Raises:
        UserError: It does not.
    """
    absent = _find_absent_state(checkpoint, schedulers=schedulers)
    if absent:
        raise UserError(
            f'cannot resume from {source}: it has no {", ".join(absent)}. To start a new training '
            f'from its weights use --cfg-options load_from={source}'
        )


def _find_absent_state(checkpoint: dict[str, Any], *, schedulers: bool) -> list[str]:
    needed = ['state_dict', 'meta', 'optimizer']
    needed += ['param_schedulers', 'message_hub'] if schedulers else ['message_hub']
    return [key for key in needed if key not in checkpoint]


def _read_note(work_dir: str) -> str | None:
    """Returns the checkpoint in last_checkpoint, None without that file; ValueError if invalid."""
    note = Path(work_dir, NOTE)
    if not os.path.lexists(note):
        return None
    if not note.is_file():
        raise ValueError(f'{note}: it is not a file')
    try:
        with note.open('rb') as file:
            content = file.read(_LONGEST_PATH + 1)
        noted = content.decode().strip()
    except OSError as error:
        raise ValueError(f'{note}: {error.strerror}') from error
    except UnicodeDecodeError:
        raise ValueError(f'{note}: it is not text') from None
    if not noted:
        raise ValueError(f'{note}: it is empty')
    if len(content) > _LONGEST_PATH or not noted.isprintable():
        raise ValueError(f'{note}: it does not hold a path')
    if '://' in noted:
        return noted
    # The recorded path is relative to the folder in which that run was started, and work
    # directories may be moved and copied.
    places = [str(Path(work_dir, os.path.basename(noted))), noted]
    place = next(filter(os.path.isfile, places), None)
    if place is None:
        shown = noted if len(noted) < 200 else f'{noted[:200]}...'
        raise ValueError(f'{note}: it names {shown}, which does not exist')
    return place


def _newest_first(work_dir: str) -> list[Path]:
    checkpoints = [
        path
        for path in Path(work_dir).glob('*.pth')
        if path.is_file() and not path.name.startswith('best_')
    ]
    return sorted(checkpoints, key=lambda path: path.stat().st_mtime_ns, reverse=True)
