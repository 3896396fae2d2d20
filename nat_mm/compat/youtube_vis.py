"""mmdet's evaluation of YouTube-VIS uses ``np.float``, which NumPy 1.24 removed."""

from types import ModuleType

from nat_mm.compat import NOT_REPORTED
from nat_mm.compat.removed_names import ModuleWithNames

BROKEN_IN = {'mmdet': '<3.4', 'numpy': '>=1.24'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmdet.evaluation.functional.ytviseval',)


def repair(module: ModuleType) -> None:
    """Gives the module ``np.float``.

    Args:
        module: ``mmdet.evaluation.functional.ytviseval``.
    """
    module.np = ModuleWithNames(module.np, float=float)
