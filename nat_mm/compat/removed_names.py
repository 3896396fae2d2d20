"""Restores names that NumPy or Python removed, for OpenMMLab modules that still use them."""

from types import ModuleType
from typing import Any


class ModuleWithNames(ModuleType):
    """A module with additional names.

    It replaces what a single module has imported; the original module is unchanged.

    Args:
        module: The original module, which has all other names.
        **names: Values of the additional names.
    """

    def __init__(self, module: ModuleType, **names: Any):
        super().__init__(module.__name__)
        vars(self).update(names)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
