"""What mmdet takes from panopticapi, for installations without it.

mmdet's panoptic datasets, metric and inferencer need the package ``panopticapi``, which cannot be
installed from PyPI. :mod:`nat_mm_startup` serves this folder under that name where no other package
has it, with the few names that mmdet imports; mmdet itself matches the segments and computes from
them. Nothing here may import nat_mm: it is no part of ``panopticapi``.
"""

import os
from importlib.util import find_spec

BROKEN_IN = {'mmdet': '<3.6'}
UPSTREAM = 'not reported'


def replaced() -> str | None:
    """Why this is not needed: an installed panopticapi goes first."""
    spec = find_spec('panopticapi')
    if spec is None or os.path.samefile(spec.origin, __file__):
        return None
    return 'panopticapi itself is installed'
