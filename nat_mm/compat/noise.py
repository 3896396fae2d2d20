"""Warnings of OpenMMLab about its own code, which its users can do nothing about."""

import warnings

_MESSAGES = (
    ('pkg_resources is deprecated as an API', UserWarning),
    ('``build_loss`` would be deprecated soon', UserWarning),
    ('The shape of value will convert from', UserWarning),
    ('`broadcast_buffers` is deprecated', FutureWarning),
    ('torch.meshgrid: in an upcoming release', UserWarning),
    (r'`torch\.cuda\.amp\.GradScaler\(args', FutureWarning),
)


def silence() -> None:
    """Ignore the warnings by their text; every other warning still shows."""
    for message, category in _MESSAGES:
        warnings.filterwarnings('ignore', message, category)
