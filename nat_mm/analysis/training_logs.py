"""Reads the logs that mmengine writes during training runs."""

import itertools
import json
import math
import sys
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from nat_mm.errors import UserError

_COUNTERS = ('step', 'iter', 'epoch')


@dataclass(frozen=True)
class Curve:
    """How a number changes over a training run.

    Attributes:
        places: Where each value was logged, in `unit`, ascending.
        values: The values.
        unit: ``iteration``, or ``epoch`` for values measured once per epoch.
    """

    places: list[int]
    values: list[float]
    unit: str


@dataclass(frozen=True)
class TrainingLog:
    """What was logged of one training run.

    Attributes:
        path: File or folder that it was read from.
        entries: Entries that mmengine wrote, oldest first.
    """

    path: Path
    entries: list[dict]

    @property
    def keys(self) -> list[str]:
        """Names of all numbers that were logged, in the order of their first appearance."""
        return list(
            dict.fromkeys(
                key
                for entry in self.entries
                for key, value in entry.items()
                if key not in _COUNTERS and isinstance(value, Real)
            )
        )

    def curve(self, key: str) -> Curve:
        """Collects the values of a number over the training run.

        Args:
            key: Its name, such as ``loss`` or ``coco/bbox_mAP``.

        Returns:
            The values and where they were logged.

        Raises:
            UserError: The number was not logged.
        """
        places, values, unit = [], [], 'iteration'
        last_epoch = 0
        for entry in self.entries:
            last_epoch = entry.get('epoch', last_epoch)
            if not isinstance(entry.get(key), Real):
                continue
            # mmengine numbers validations by epoch if the run counts epochs.
            if 'iter' not in entry and 0 < entry['step'] <= last_epoch:
                unit = 'epoch'
            places.append(entry.get('iter', entry['step']))
            values.append(entry[key])
        if not values:
            raise UserError(f'{self.path} has no {key!r}; it has: {", ".join(self.keys)}')
        return Curve(places, values, unit)


def read_log(path: Path) -> TrainingLog:
    """Reads the log of a training run.

    A work directory may contain several logs, because a resumed run starts a new one. They are
    joined: from its first iteration on, a later log replaces an earlier one.

    Args:
        path: Work directory of a training run, one of its timestamped folders, or a file of JSON
            lines such as ``vis_data/scalars.json`` in one of those.

    Returns:
        The log.

    Raises:
        UserError: There is no log, it is empty, or it has a line that mmengine does not write.
    """
    if path.is_file():
        files = [path]
    elif path.is_dir():
        patterns = ('scalars.json', 'vis_data/scalars.json', '*/vis_data/scalars.json')
        files = [file for pattern in patterns for file in sorted(path.glob(pattern))]
    else:
        raise UserError(f'log not found: {path}')
    if not files:
        raise UserError(f'no log of a training run in {path}: no scalars.json in its vis_data')
    entries = []
    for file in files:
        entries = _join(entries, _read_entries(file))
    if not entries:
        raise UserError(f'the log {files[-1]} is empty')
    return TrainingLog(path, entries)


def _join(earlier: list[dict], later: list[dict]) -> list[dict]:
    start = next((entry['iter'] for entry in later if 'iter' in entry), math.inf)
    kept = itertools.takewhile(lambda entry: entry.get('iter', -1) < start, earlier)
    return [*kept, *later]


def _read_entries(file: Path) -> list[dict]:
    try:
        lines = file.read_text(encoding='utf-8').splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'cannot read the log {file}: {error}') from error
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            if number == len(lines) and not line.endswith('\n'):
                print(f'warning: {file}, line {number} is not complete, left out', file=sys.stderr)
                continue
            raise UserError(f'{file}, line {number} is not JSON: {error}') from error
        mistake = _find_mistake(entry)
        if mistake:
            raise UserError(
                f'{file}, line {number} is not from the log of a training run: {mistake}'
            )
        entries.append(entry)
    return entries


def _find_mistake(entry: Any) -> str | None:
    if not isinstance(entry, dict) or 'step' not in entry:
        return 'it has no "step"'
    for name in _COUNTERS:
        if name in entry and type(entry[name]) is not int:  # bool is an int, too
            return f'its "{name}" is no integer but {json.dumps(entry[name])[:50]}'
    return None
