"""Makes ``mmseg::`` configs work where onedl-mmsegmentation provides mmseg.

mmengine looks for a distribution called mmsegmentation.
"""

from types import ModuleType

from nat_mm.compat import NOT_REPORTED

BROKEN_IN = {'onedl-mmsegmentation': '<1.5'}
UPSTREAM = NOT_REPORTED
MODULES = ('mmengine.config.utils',)


def repair(module: ModuleType) -> None:
    """Makes mmengine look for the module mmseg itself.

    Args:
        module: ``mmengine.config.utils``.
    """
    module.MODULE2PACKAGE['mmseg'] = 'mmseg'
