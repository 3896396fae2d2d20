"""Names that NumPy removed, for the modules of OpenMMLab that still use them."""

from types import ModuleType
from typing import Any

import numpy as np


class NumPyWithNames(ModuleType):
    """NumPy with further names.

    A module's own ``np`` is replaced by it; NumPy itself stays as it is.

    Args:
        names: What the names stand for.
    """

    def __init__(self, **names: Any):
        super().__init__('numpy')
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)
