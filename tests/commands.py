"""The commands of tools/ as functions."""

import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

TOOLS = Path(__file__).parents[1] / 'tools'

Run = Callable[..., None]


def load_tool(name: str) -> ModuleType:
    """Imports a script of tools/ as a module."""
    spec = importlib.util.spec_from_file_location(f'tool_{name}', TOOLS / f'{name}.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def name_for_mim(module: str) -> str:
    """Name of the package that brings a module: ``mim`` asks for it, and the forks' are others."""
    return importlib.metadata.packages_distributions()[module][0]
