"""Repairs of what current PyTorch breaks in OpenMMLab (mmengine 0.10, mmdet 3.3, mmseg 1.2).

Every repair has its own module. None changes an installation that works without it.
"""

from importlib.util import find_spec

import nat_mm_startup


def apply() -> None:
    """Put the repairs into effect; further calls change nothing.

    Without mmengine only the import hooks of :mod:`nat_mm_startup` are installed, so that
    :mod:`nat_mm.ops` needs nothing but PyTorch.
    """
    nat_mm_startup.install()
    if find_spec('mmengine') is None:
        return
    from . import autocast, checkpoints

    checkpoints.allow_mmengine_checkpoints()
    autocast.register_optim_wrapper()
