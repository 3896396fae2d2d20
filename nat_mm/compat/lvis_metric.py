"""The LVIS API on PyPI, which mmdet's LVISMetric runs, uses ``np.float``.

NumPy 1.24 removed it.
"""

from types import ModuleType

from nat_mm.compat.removed_names import ModuleWithNames

BROKEN_IN = {'lvis': '<=0.5.3', 'numpy': '>=1.24'}
UPSTREAM = 'https://github.com/lvis-dataset/lvis-api/issues/37'
MODULES = ('lvis.eval',)


def repair(module: ModuleType) -> None:
    """Gives the module ``np.float``.

    Args:
        module: ``lvis.eval``.
    """
    module.np = ModuleWithNames(module.np, float=float)
