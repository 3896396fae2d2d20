"""mmpretrain's multimodal models cannot be imported beside transformers 4.56 and later.

They need names that it removed, and mmdet imports mmpretrain where transformers is installed.
"""

from types import ModuleType

from nat_mm.compat import NOT_REPORTED

BROKEN_IN = {'mmpretrain': '<1.4', 'transformers': '>=4.56'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmpretrain.utils.dependency',)


def repair(module: ModuleType) -> None:
    """Leaves those models out, as without transformers, where placeholders stand for them.

    Args:
        module: ``mmpretrain.utils.dependency``.
    """
    module.WITH_MULTIMODAL = False
