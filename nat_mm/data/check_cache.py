"""Caches which configs and data passed the checks, so that they are not checked again."""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
from mmengine.config import Config

from nat_mm import __version__
from nat_mm.compat import installed_version
from nat_mm.config.datasets import find_inner
from nat_mm.data.check import Report, check_config
from nat_mm.data.findings import Finding
from nat_mm.data.paths import find_evaluators, local_paths
from nat_mm.data.progress import Progress
from nat_mm.files import write_json

PACKAGES = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'torch', 'numpy', 'pillow')
WITHOUT_EFFECT = ('work_dir', 'resume', 'load_from', 'randomness', 'visualizer')
"""Keys of a config that no check reads and that differ from run to run."""


def check_once(
    config: Config,
    *,
    splits: Sequence[str],
    files: bool,
    progress: Progress,
) -> Report:
    """Checks a config and its data like `check_config`, unless they passed before.

    Results with errors are not cached. Other results are kept in the user's cache folder until the
    config, an annotation file, a folder of images, a package, or the code of nat_mm or of the
    config's ``custom_imports`` changes. Changing the content of a file within a folder of images
    goes unnoticed.

    Args:
        config: Config of the run.
        splits: Which splits of the data to check: ``train``, ``val``, ``test``.
        files: Whether to check image files, and not only annotations.
        progress: Called every now and then.

    Returns:
        What was found, without summaries.
    """
    place = _folder() / f'{_fingerprint(config, splits, files)}.json'
    with suppress(OSError, ValueError, TypeError):
        texts = json.loads(place.read_text(encoding='utf-8'))
        return Report((), [Finding(str(text), is_error=False) for text in texts])
    report = check_config(config, splits=splits, files=files, progress=progress)
    if not report.errors:
        with suppress(OSError):
            write_json(place, [each.text for each in report.warnings])
    return Report((), report.findings)


def _folder() -> Path:
    base = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return Path(base, 'nat_mm', 'checks')


def _fingerprint(config: Config, splits: Sequence[str], files: bool) -> str:
    settings = {key: value for key, value in config.to_dict().items() if key not in WITHOUT_EFFECT}
    known = {
        'config': _with_text_keys(settings),
        'folder': os.getcwd(),
        'splits': list(splits),
        'files': files,
        'state': [list(_states(config, split)) for split in splits],
        'versions': [__version__, cv2.__version__, *map(installed_version, PACKAGES)],
        'code': _digest(['nat_mm', *_custom_imports(config)]),
    }
    content = json.dumps(known, default=repr, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _with_text_keys(value: Any) -> Any:
    """Makes the keys of dicts sortable and fit for JSON, such as the colors of label images."""
    if isinstance(value, dict):
        return {repr(key): _with_text_keys(each) for key, each in value.items()}
    return [_with_text_keys(each) for each in value] if isinstance(value, list | tuple) else value


def _custom_imports(config: Config) -> list[str]:
    imports = (config.get('custom_imports') or {}).get('imports') or []
    return [imports] if isinstance(imports, str) else list(imports)


def _digest(modules: Iterable[str]) -> str:
    """Returns a digest of the sources of imported modules; those of nat_mm take about 10 ms.

    The version is not enough, as a checkout and unreleased versions change without it.
    """
    digest = hashlib.sha256()
    for name in sorted(set(modules)):
        module = sys.modules.get(name)
        files = {Path(module.__file__)} if getattr(module, '__file__', None) else set()
        for folder in getattr(module, '__path__', ()):
            files.update(Path(folder).rglob('*.py'))
        for file in sorted(files):
            with suppress(OSError):
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _states(config: Config, split: str) -> Iterator[tuple]:
    """Yields modification time and size of the files and folders with the data of one split."""
    for _, dataset in find_inner(config, split):
        for path in local_paths(dataset).values():
            if os.path.isdir(path):
                for folder, *_ in os.walk(path):
                    yield _state(folder)
            else:
                yield _state(path)
        classes = (dataset.get('metainfo') or {}).get('classes')
        if isinstance(classes, str):
            yield _state(classes)
    for _, evaluator in find_evaluators(config, split):
        if isinstance(evaluator.get('ann_file'), str):
            yield _state(evaluator['ann_file'])


def _state(path: str) -> tuple:
    try:
        status = os.stat(path)
    except OSError:
        return path, None
    return path, status.st_mtime_ns, status.st_size
