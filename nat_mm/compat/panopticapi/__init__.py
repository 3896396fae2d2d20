"""The parts of panopticapi that mmdet uses, for installations without it.

mmdet's panoptic datasets, metric and inferencer need the package ``panopticapi``, which is not
available on PyPI. :mod:`nat_mm_startup` serves this folder under that name if there is no other
such package, with the few names that mmdet imports; mmdet itself matches the segments and computes
the counts. Nothing here may import nat_mm, which is not part of ``panopticapi``.
"""

import os
from importlib.util import find_spec

BROKEN_IN = {'mmdet': '<3.6'}
UPSTREAM = 'not reported'


def replaced() -> str | None:
    """Return why this is not needed: an installed panopticapi takes precedence."""
    spec = find_spec('panopticapi')
    if spec is None or os.path.samefile(spec.origin, __file__):
        return None
    return 'panopticapi itself is installed'
