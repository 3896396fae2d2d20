"""mmpretrain's retrieval metrics use ``np.in1d``, which NumPy 2.4 removed."""

from types import ModuleType

from nat_mm.compat import NOT_REPORTED
from nat_mm.compat.numpy_names import NumPyWithNames

BROKEN_IN = {'mmpretrain': '<1.3', 'numpy': '>=2.4'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmpretrain.evaluation.metrics.retrieval',)


def repair(module: ModuleType) -> None:
    """Gives the module ``np.in1d``.

    Args:
        module: ``mmpretrain.evaluation.metrics.retrieval``.
    """
    import numpy as np

    module.np = NumPyWithNames(in1d=np.isin)  # does the same for the flat arrays there
