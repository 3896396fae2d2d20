"""Repairs for what is broken in OpenMMLab's releases, mainly on current PyTorch.

Each one is a module of this package that imports nothing from OpenMMLab before it is applied. It
has:

- ``BROKEN_IN``, the versions that need it, by package; all of them must match. A package is a
  distribution; or one of OpenMMLab's modules, such as ``mmseg``, whichever distribution provides
  it; or ``python``.
- ``UPSTREAM``, where the problem is reported upstream, or :data:`NOT_REPORTED`.
- ``MODULES``, the modules to change as soon as they are imported.
- ``repair(module)``, which changes one of them.

:data:`STAND_INS` are served by :mod:`nat_mm_startup` instead of packages that are not installed.
They have no ``MODULES``, and ``replaced()`` returns why they are not needed.

``python -m nat_mm.compat`` prints which are active and why. tests/compat/test_upstream.py runs what
is broken without the repair, and fails for each repair that upstream no longer needs. In that case,
lower the bound in its ``BROKEN_IN`` or delete it.
"""

import functools
import platform
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
    'cross_entropy',
    'ddp_checkpoints',
    'find_loader',
    'focal_loss',
    'fork_configs',
    'fsdp',
    'hue',
    'infinite_numbers',
    'lazy_configs',
    'lvis_metric',
    'multimodal',
    'noise',
    'openimages',
    'outdated_checkpoints',
    'panoptic_images',
    'panoptic_metric',
    'pasted_masks',
    'plain_texts',
    'point_assigner',
    'postscript',
    'proposal_recall',
    'retrieval',
    'safe_checkpoints',
    'scores_file',
    'seg_visualizer',
    'ssd',
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
    """Whether a repair is needed in this environment.

    Attributes:
        name: Name of the repair's module in this package.
        active: Whether the repair is needed.
        reason: Why or why not, in a few words.
        upstream: Where the problem is reported upstream.
    """

    name: str
    active: bool
    reason: str
    upstream: str


@functools.cache
def apply() -> None:
    """Applies the repairs that are needed; further calls have no effect.

    Without mmengine, only the import hooks of :mod:`nat_mm_startup` are installed, so that
    :mod:`nat_mm.ops` needs only PyTorch.
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
    """Checks whether the installed packages need one of :data:`REPAIRS` or :data:`STAND_INS`."""
    repair = load(name)
    active, reason = _compare(repair.BROKEN_IN)
    replaced = repair.replaced() if active and name in STAND_INS else None
    return Status(name, active and not replaced, replaced or reason, repair.UPSTREAM)


def load(name: str) -> ModuleType:
    """Imports one of :data:`REPAIRS` or :data:`STAND_INS`."""
    return import_module(f'{__name__}.{name}')


def installed_version(package: str) -> str | None:
    """Returns the version of a package of ``BROKEN_IN``, or None if it is missing."""
    if package == 'python':
        return platform.python_version()
    for distribution in _DISTRIBUTIONS.get(package, (package,)):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def _compare(broken_in: dict[str, str]) -> tuple[bool, str]:
    """Returns whether all installed versions are broken, and the versions that decided it."""
    # Imported here because nat_mm.ops without OpenMMLab needs only PyTorch.
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
