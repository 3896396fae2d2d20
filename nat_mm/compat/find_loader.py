"""mmengine uses ``pkgutil.find_loader``, which Python 3.14 removed.

It looks for mmcv's compiled operators whenever it builds a model or an optimizer for training.
"""

from importlib.util import find_spec
from types import ModuleType
from typing import Any

from nat_mm.compat import NOT_REPORTED
from nat_mm.compat.removed_names import ModuleWithNames

# OneDL's fork uses importlib.
BROKEN_IN = {'mmengine': '<0.10.12', 'python': '>=3.14'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmengine.utils.dl_utils.misc',)


def repair(module: ModuleType) -> None:
    """Gives the module ``pkgutil.find_loader``.

    Args:
        module: ``mmengine.utils.dl_utils.misc``.
    """
    module.pkgutil = ModuleWithNames(module.pkgutil, find_loader=_find_loader)


def _find_loader(name: str) -> Any:
    spec = find_spec(name)
    return spec and spec.loader
