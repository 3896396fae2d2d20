"""What mmdet takes from panopticapi, for installations without it.

mmdet's panoptic data sets, metric and inferencer need the package ``panopticapi``, which cannot be
installed from PyPI. :mod:`nat_mm_startup` serves this folder under that name where no other package
has it, with the few names that mmdet imports; mmdet itself matches the segments and computes from
them. Nothing here may import nat_mm: it is no part of ``panopticapi``.
"""
