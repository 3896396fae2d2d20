"""Restores names that NumPy removed, for OpenMMLab modules that still use them."""

from types import ModuleType
from typing import Any

import numpy as np


class NumPyWithNames(ModuleType):
    """NumPy with additional names.

    It replaces the ``np`` of a single module; NumPy itself is unchanged.

    Args:
        **names: Values of the additional names.
    """

    def __init__(self, **names: Any):
        super().__init__('numpy')
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)
