"""mmengine executes the config in a checkpoint, which is stored as the text of a program.

Runners do so when they resume, to compare the number of GPUs, and inferencers without a config do
so to build the model. Here, runners search the text for the number instead, and inferencers reject
it.
"""

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

from nat_mm.compat import NOT_REPORTED

if TYPE_CHECKING:
    from mmengine.config import Config

# No upper bound: code must not run in releases that have not been reviewed yet, either.
BROKEN_IN = {'mmengine': '>=0.10'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmengine.infer.infer', 'mmengine.runner._flexible_runner', 'mmengine.runner.runner')

_GPU_IDS = re.compile(r'^gpu_ids = [\[(]([\d, ]*)[\])]$', re.MULTILINE)


def repair(module: ModuleType) -> None:
    """Prevents a runner or an inferencer from executing the config in a checkpoint.

    Args:
        module: One of :data:`MODULES`.
    """
    if module.__name__ == 'mmengine.infer.infer':
        _read_config_text_by(_refuse, module.BaseInferencer, '_init_model')
    else:
        runner = getattr(module, 'Runner', None) or module.FlexibleRunner  # each has one of them
        _read_config_text_by(_find_gpu_ids, runner, 'resume')


def _read_config_text_by(read: Callable[[str], 'Config'], owner: type, name: str) -> None:
    """Makes a method parse the text of configs with the given function instead of mmengine's."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def call(self, *args, **kwargs):
        with _replaced_fromstring(read):
            return method(self, *args, **kwargs)

    setattr(owner, name, call)


@contextmanager
def _replaced_fromstring(read: Callable[[str], 'Config']) -> Iterator[None]:
    from mmengine.config import Config

    execute = vars(Config)['fromstring']
    Config.fromstring = staticmethod(lambda cfg_str, file_format: read(cfg_str))
    try:
        yield
    finally:
        Config.fromstring = execute


def _find_gpu_ids(text: str) -> 'Config':
    """Returns the only part of the old config that resuming needs."""
    from mmengine.config import Config

    found = _GPU_IDS.search(text)
    return Config({'gpu_ids': re.findall(r'\d+', found[1])} if found else {})


def _refuse(text: str) -> 'Config':
    from nat_mm.errors import CheckpointError

    raise CheckpointError(
        'the config inside a checkpoint is a program, which is not run. Give the config file, too: '
        "DetInferencer('config.py', weights='checkpoint.pth')"
    )
