"""Repairs of what is broken in OpenMMLab's releases, above all on current PyTorch.

Every one is a module here that imports nothing of OpenMMLab before it is applied. It has:

- ``BROKEN_IN``, the versions that need it, by package; all of them have to match. A package is one
  of OpenMMLab's modules, such as ``mmseg``, whichever distribution brings it, or a distribution.
- ``UPSTREAM``, where upstream knows of it, or :data:`NOT_REPORTED`.
- ``MODULES``, the modules that it changes as soon as they are imported.
- ``repair(module)``, which changes one of them.

:data:`STAND_INS` are served by :mod:`nat_mm_startup` in place of packages that are not installed.
They have no ``MODULES``, and ``replaced()`` says why they are not needed.

``python -m nat_mm.compat`` prints which are active and why. tests/compat/test_upstream.py runs what
is broken without its repair, and fails for each one that upstream no longer needs: lower the bound
in its ``BROKEN_IN`` then, or delete it.
"""

import functools
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from types import ModuleType

import nat_mm_startup

REPAIRS = (
    'bf16_boxes',
    'checkpoint_configs',
    'coco_annotations',
    'compiled_training',
    'ddp_checkpoints',
    'fork_configs',
    'fsdp',
    'lazy_configs',
    'multimodal',
    'noise',
    'outdated_checkpoints',
    'panoptic_images',
    'panoptic_metric',
    'plain_texts',
    'retrieval',
    'safe_checkpoints',
    'scores_file',
    'seg_visualizer',
    'whole_checkpoints',
    'youtube_vis',
)
STAND_INS = ('mmcv_ops', 'panopticapi')
NOT_REPORTED = 'not reported'

_DISTRIBUTIONS = {
    'mmcv': ('mmcv', 'mmcv-lite', 'onedl-mmcv'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
    'mmengine': ('mmengine', 'onedl-mmengine'),
    'mmpretrain': ('mmpretrain', 'onedl-mmpretrain'),
    'mmseg': ('mmsegmentation', 'onedl-mmsegmentation'),
}


@dataclass(frozen=True)
class Status:
    """Whether a repair is needed here.

    Args:
        name: Its module in this package.
        active: Whether it is.
        reason: Why, in a few words.
        upstream: Where upstream knows of it.
    """

    name: str
    active: bool
    reason: str
    upstream: str


@functools.cache
def apply() -> None:
    """Puts the repairs that are needed into effect; further calls change nothing.

    Without mmengine only the import hooks of :mod:`nat_mm_startup` are installed, so that
    :mod:`nat_mm.ops` needs nothing but PyTorch.
    """
    nat_mm_startup.install()
    if find_spec('mmengine') is None:
        return
    for name in REPAIRS:
        if find_status(name).active:
            repair = load(name)
            for module in repair.MODULES:
                nat_mm_startup.when_imported(module, repair.repair)


def find_status(name: str) -> Status:
    """Says whether the installed packages need one of :data:`REPAIRS` or :data:`STAND_INS`."""
    repair = load(name)
    active, reason = _compare(repair.BROKEN_IN)
    replaced = repair.replaced() if active and name in STAND_INS else None
    return Status(name, active and not replaced, replaced or reason, repair.UPSTREAM)


def load(name: str) -> ModuleType:
    """Imports one of :data:`REPAIRS` or :data:`STAND_INS`."""
    return import_module(f'{__name__}.{name}')


def installed_version(package: str) -> str | None:
    """The version of a distribution or of one of OpenMMLab's modules, None where it is missing."""
    for distribution in _DISTRIBUTIONS.get(package, (package,)):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def _compare(broken_in: dict[str, str]) -> tuple[bool, str]:
    """Whether all installed versions are broken ones, and which decided it."""
    # Not at the top: without OpenMMLab nat_mm.ops needs nothing but PyTorch.
    from packaging.specifiers import SpecifierSet

    versions = {package: installed_version(package) for package in broken_in}
    for package, version in versions.items():
        if version is None:
            return False, f'{package} is not installed'
        if not SpecifierSet(broken_in[package]).contains(version, prereleases=True):
            return False, f'{package} {version} (broken in {broken_in[package]})'
    return True, ', '.join(
        f'{package} {version} (broken in {broken_in[package]})'
        for package, version in versions.items()
    )
