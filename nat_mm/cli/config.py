"""Reads a config file for a command."""

import os
from pathlib import Path
from typing import Any

from mmengine.config import Config

from nat_mm.cli.errors import CommandError

FRAMEWORKS = ('mmdet', 'mmseg')


def load_config(path: str, *, overrides: dict[str, Any] | None, work_dir: str | None) -> Config:
    """Reads a config and settles its work directory.

    Args:
        path: Config file.
        overrides: Values of ``--cfg-options``, keyed by dotted name.
        work_dir: Value of ``--work-dir``. Without it the config's own ``work_dir`` holds, and
            without that ``work_dirs/<name of the config>``.

    Returns:
        The config, its imports done.

    Raises:
        CommandError: The file is missing, cannot be parsed, or belongs to neither mmdet nor mmseg.
    """
    if not os.path.isfile(path):
        raise CommandError(f'config not found: {path}')
    try:
        config = Config.fromfile(path)
    except Exception as error:
        raise CommandError(
            f'cannot read config {path}: {type(error).__name__}: {error}'
        ) from error
    if overrides:
        config.merge_from_dict(overrides)
    if config.get('default_scope') not in FRAMEWORKS:
        raise CommandError(
            f'{path}: default_scope must be one of {FRAMEWORKS}, '
            f'got {config.get("default_scope")!r}'
        )
    config.work_dir = work_dir or config.get('work_dir') or str(Path('work_dirs', Path(path).stem))
    return config
