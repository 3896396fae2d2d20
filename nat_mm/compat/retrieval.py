"""mmpretrain's retrieval metrics use ``np.in1d``, which NumPy 2.4 removed."""

from types import ModuleType

from nat_mm.compat import NOT_REPORTED
from nat_mm.compat.numpy_names import NumPyWithNames

BROKEN_IN = {'mmpretrain': '<1.3', 'numpy': '>=2.4'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmpretrain.evaluation.metrics.retrieval',)


def repair(module: ModuleType) -> None:
    """Gives the module this name.

    Args:
        module: ``mmpretrain.evaluation.metrics.retrieval``.
    """
    import numpy as np

    module.np = NumPyWithNames(in1d=np.isin)  # of the flat arrays there it does the same
