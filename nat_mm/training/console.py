"""Shortens the console output: what few people read at every start goes only to the log file."""

import logging
import os
from pathlib import Path

from mmengine.dist import master_only
from mmengine.runner import FlexibleRunner, Runner

_FOR_THE_FILE = (
    '\n' + '-' * 60 + '\nSystem environment:',
    'Config:\n',
    'Hooks will be executed in the following order:\n',
    'paramwise_options -- ',
)
"""Start of mmengine's messages that fill hundreds of lines."""

LOG_FOLDERS: set[Path] = set()
"""Folders in which runs of this process have logged."""


class _ShortConsole:
    """Omits environment, config, hooks and per-parameter options from the console.

    It also keeps configs in the work directory that mmengine would overwrite.
    """

    def _log_env(self, *arguments: dict) -> None:
        # This is the first use of the logger in both runners.
        LOG_FOLDERS.add(Path(os.path.abspath(self.log_dir)))
        for handler in self.logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_is_for_the_console)
        super()._log_env(*arguments)
        self.logger.info('Environment, config and hooks: see %s', self.logger.log_file)

    def dump_config(self) -> None:
        """Does nothing: `save_config` is called instead, with what only the command knows."""

    @master_only
    def save_config(self, *, replace: bool) -> None:
        """Writes the config to the work directory, or beside the log if one there is to be kept.

        A file from which the config was read is always kept: its bases and comments would be lost.

        Args:
            replace: Whether the config replaces that of an earlier run.
        """
        source = self.cfg.filename
        target = source and Path(self.work_dir, os.path.basename(source))
        if target and target.exists() and (not replace or target.samefile(source)):
            self.cfg.dump(os.path.join(self.log_dir, target.name))
        else:
            super().dump_config()


class ShortRunner(_ShortConsole, Runner):
    """mmengine's Runner with a short console."""


class ShortFlexibleRunner(_ShortConsole, FlexibleRunner):
    """mmengine's FlexibleRunner with a short console."""


def _is_for_the_console(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_FOR_THE_FILE)
