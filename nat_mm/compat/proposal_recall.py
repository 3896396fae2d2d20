"""mmdet's recall of proposals makes one array of overlaps of different shapes.

Unless all images have as many objects and proposals, NumPy 1.24 and newer refuse it.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from nat_mm.compat import NOT_REPORTED
from nat_mm.compat.removed_names import ModuleWithNames

BROKEN_IN = {'mmdet': '<3.6', 'numpy': '>=1.24'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmdet.evaluation.functional.recall',)


def repair(module: ModuleType) -> None:
    """Lets the module put arrays of different shapes into one.

    Args:
        module: ``mmdet.evaluation.functional.recall``.
    """
    create = module.np.array

    def create_ragged(values: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return create(values, *args, **kwargs)
        except ValueError:
            ragged = module.np.empty(len(values), dtype=object)
            for index, value in enumerate(values):
                ragged[index] = value
            return ragged

    module.np = ModuleWithNames(module.np, array=create_ragged)
