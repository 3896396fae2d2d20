"""Checks a config and its data before a command uses them."""

import sys
from collections.abc import Sequence

from mmengine.config import Config

from nat_mm.commands.progress import show_progress
from nat_mm.commands.running import printable
from nat_mm.data.check import summarize_errors
from nat_mm.data.check_cache import check_once
from nat_mm.errors import UserError


def require_sound_data(config: Config, *, splits: Sequence[str], files: bool) -> None:
    """Checks a config and its data, and prints warnings as one line each.

    Args:
        config: Config of the run.
        splits: Which splits of the data to check: ``train``, ``val``, ``test``.
        files: Whether to check image files, and not only annotations.

    Raises:
        UserError: There are errors.
    """
    with show_progress() as progress:
        report = check_once(config, splits=splits, files=files, progress=progress)
    if report.errors:
        raise UserError(summarize_errors(report, config))
    for finding in report.warnings:
        print(f'warning: {printable(finding.text)}', file=sys.stderr)
