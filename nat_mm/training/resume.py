"""Finds the checkpoint from which a training run goes on."""

import os
import sys
from pathlib import Path
from typing import Any

from nat_mm.errors import UserError
from nat_mm.inference.checkpoint import check_resumable, read_for_model

NOTE = 'last_checkpoint'
"""File of a work dir in which mmengine notes the checkpoint that it wrote last."""

_LONGEST_PATH = 4096


def find_last_checkpoint(
    work_dir: str, *, resumable: bool = True, quiet: bool = False
) -> tuple[str, dict[str, Any]] | None:
    """Reads the newest checkpoint of a work dir that can be read.

    The one that the file last_checkpoint names goes before others, and these go by their age.
    Those with the weights of the best epoch, which hold no training state, are left out.

    Args:
        work_dir: Work dir of the run.
        resumable: Take only checkpoints from which training can go on.
        quiet: Do not say on stderr which checkpoints were passed over, and why.

    Returns:
        Its path and what `read_for_model` returns for it; None if no run has written one there.

    Raises:
        UserError: There are checkpoints, but none that can be taken; or last_checkpoint names
            one, and there is none.
    """
    sources = [str(path) for path in _newest_first(work_dir)]
    complaints, damaged = [], False
    try:
        noted = _read_note(work_dir)
    except ValueError as error:
        complaints, damaged = [str(error)], True
    else:
        if noted is not None:
            sources, damaged = list(dict.fromkeys([noted, *sources])), True
    for source in sources:
        try:
            checkpoint = read_for_model(source)
        except UserError as error:
            complaints.append(_describe(source, error))
            damaged = True
            continue
        try:
            if resumable:
                check_resumable(checkpoint, source=source)
        except UserError as error:
            complaints.append(_describe(source, error))
            continue
        if not quiet:
            for complaint in complaints:
                print(f'warning: passed over {complaint}', file=sys.stderr)
        return source, checkpoint
    if not damaged:
        # Weights that lie there for another reason.
        return None
    raise UserError(
        f'no checkpoint in {work_dir} can be used: {"; ".join(complaints)}. Name another one, or '
        'start over in another work dir'
    )


def _read_note(work_dir: str) -> str | None:
    """The checkpoint that the note names, None without a note; ValueError says what is wrong."""
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
    # The noted path is relative to the folder in which that run was started, and work dirs are
    # moved and copied.
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


def _describe(source: str, error: UserError) -> str:
    """A complaint about a checkpoint, which names it once and gives no advice."""
    message = str(error)
    for words in (f'cannot resume from {source}: ', 'checkpoint not found: '):
        message = message.replace(words, '')
    message = message.partition('. To start')[0].rstrip('.')
    return message if source in message else f'{source}: {message}'
