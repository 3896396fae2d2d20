"""mmengine writes a test's scores to the same file from every process at the same time."""

import functools
from types import ModuleType
from typing import Any

from nat_mm.compat import NOT_REPORTED

BROKEN_IN = {'mmengine': '<0.11'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmengine.hooks.logger_hook',)


def repair(module: ModuleType) -> None:
    """Lets only the main process write the scores.

    Args:
        module: ``mmengine.hooks.logger_hook``.
    """
    dump = module.dump

    @functools.wraps(dump)
    def dump_on_main_process(*arguments: Any, **options: Any) -> None:
        from mmengine.dist import is_main_process

        if is_main_process():
            dump(*arguments, **options)

    module.dump = dump_on_main_process
