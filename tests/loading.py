"""Commands as functions."""

import importlib
import importlib.metadata
from collections.abc import Callable
from types import ModuleType

Run = Callable[..., None]


def load_command(name: str) -> ModuleType:
    """Imports a command of `nat_mm.commands`."""
    return importlib.import_module(f'nat_mm.commands.{name}')


def name_for_mim(module: str) -> str:
    """Name of the package that brings a module: ``mim`` asks for it, and the forks' are others."""
    return importlib.metadata.packages_distributions()[module][0]
