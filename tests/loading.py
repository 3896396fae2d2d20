"""Commands as functions, and Python command lines run in this process."""

import importlib
import importlib.metadata
import runpy
import sys
from collections.abc import Callable
from types import ModuleType

Run = Callable[..., None]


def load_command(name: str) -> ModuleType:
    """Imports a command of `nat_mm.commands`."""
    return importlib.import_module(f'nat_mm.commands.{name}')


def run_python(words: list[str]) -> None:
    """Runs ``python -m MODULE ...`` or ``python FILE ...`` in this process."""
    if words[0] == '-m':
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name='__main__', alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name='__main__')


def forget_visualizers() -> None:
    """Lets the next run in this process write to its own work directory, as in a new process."""
    # Processes import this file before they import OpenMMLab.
    from mmengine.visualization import Visualizer

    for kind in (Visualizer, *Visualizer.__subclasses__()):
        kind._instance_dict.clear()


def name_for_mim(module: str) -> str:
    """Returns the distribution name of a module for ``mim``; the forks' names differ."""
    return importlib.metadata.packages_distributions()[module][0]
