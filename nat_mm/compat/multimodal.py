"""mmpretrain's multimodal models cannot be imported with transformers 4.56 and later.

They need names that transformers removed, and mmdet imports mmpretrain if transformers is
installed.
"""

from types import ModuleType

from nat_mm.compat import NOT_REPORTED

BROKEN_IN = {'mmpretrain': '<1.4', 'transformers': '>=4.56'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmpretrain.utils.dependency',)


def repair(module: ModuleType) -> None:
    """Replaces these models with placeholders, as mmpretrain does without transformers.

    Args:
        module: ``mmpretrain.utils.dependency``.
    """
    module.WITH_MULTIMODAL = False
