"""Silences OpenMMLab's warnings about its own code, which users can do nothing about."""

from types import ModuleType

from nat_mm.compat import NOT_REPORTED

BROKEN_IN = {'mmengine': '<0.11'}
UPSTREAM = NOT_REPORTED
MODULES = ('warnings',)
MESSAGES = (
    ('pkg_resources is deprecated as an API', UserWarning),
    ('``build_loss`` would be deprecated soon', UserWarning),
    ('The shape of value will convert from', UserWarning),
    ('`broadcast_buffers` is deprecated', FutureWarning),
    ('torch.meshgrid: in an upcoming release', UserWarning),
    (r'`torch\.cuda\.amp\.GradScaler\(args', FutureWarning),
)
"""Regular expressions for the start of each warning, and the warning's category."""


def repair(module: ModuleType) -> None:
    """Ignores these warnings; all others are still shown.

    Args:
        module: ``warnings``.
    """
    for message, category in MESSAGES:
        module.filterwarnings('ignore', message, category)
