"""mmpretrain's retrieval metrics use ``np.in1d``, which NumPy 2.4 removed."""

from types import ModuleType

from nat_mm.compat import NOT_REPORTED
from nat_mm.compat.removed_names import ModuleWithNames

BROKEN_IN = {'mmpretrain': '<1.3', 'numpy': '>=2.4'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmpretrain.evaluation.metrics.retrieval',)


def repair(module: ModuleType) -> None:
    """Gives the module ``np.in1d``.

    Args:
        module: ``mmpretrain.evaluation.metrics.retrieval``.
    """
    # For the flat arrays there, both do the same.
    module.np = ModuleWithNames(module.np, in1d=module.np.isin)
