"""Finds problems with the folders that define the classes of a classifier's images."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import METRICS

from nat_mm.config.datasets import SPLITS
from nat_mm.config.objects import find_class
from nat_mm.data.class_lists import find_problems_of_list
from nat_mm.data.findings import Finding
from nat_mm.data.image_headers import find_unreadable_images
from nat_mm.data.paths import find_evaluators, is_local
from nat_mm.data.sources import DataSource, is_known
from nat_mm.errors import shorten


def find_class_names(source: DataSource, *, from_folders: bool = True) -> Sequence[str] | None:
    """Finds the classes of a dataset.

    Args:
        source: The dataset, of any framework.
        from_folders: Whether to use the folders of a classifier's images if the config names no
            classes.

    Returns:
        Their names; a str if the config has one instead of a tuple; None without classes.
    """
    classes = source.dataset.metainfo.get('classes')
    if classes or not from_folders or not _numbers_folders(source.dataset):
        return classes or None
    prefix = source.dataset.img_prefix
    if not is_local(source.dataset, prefix) or not Path(prefix).is_dir():
        return None
    return _list_folders(Path(prefix)) or None


def has_classes_of_its_own(config: Config, split: str) -> bool:
    """Whether the metrics of a split assign a classifier's classes to those of the data themselves.

    mmpretrain's ShapeBiasMetric sums up ImageNet's classes to the 16 of cue-conflict; users'
    metrics may do the same for other data.

    Args:
        config: Config of the run.
        split: ``train``, ``val`` or ``test``.
    """
    if config.default_scope != 'mmpretrain' or split == 'train':
        return False
    kinds = [find_class(METRICS, each, config) for _, each in find_evaluators(config, split)]
    return bool(kinds) and all(
        kind is not None and (kind.__name__ == 'ShapeBiasMetric' or not is_known(kind.process))
        for kind in kinds
    )


def find_folder_problems(
    config: Config, sources: Mapping[str, Sequence[DataSource]]
) -> Iterator[Finding]:
    """Checks the images of classifiers, and what defines their classes.

    Classes are defined by folders of images, one per class, or by a list of files with class
    numbers. mmpretrain numbers the folders of each split of the data separately, in alphabetical
    order, so the folders of different splits are also compared.

    Args:
        config: Config of the run; configs for other frameworks than mmpretrain are skipped.
        sources: The datasets of ``train``, ``val`` and ``test``.

    Yields:
        What is wrong.
    """
    if config.default_scope != 'mmpretrain':
        return
    numbered: list[tuple[DataSource, list[str]]] = []
    listed = []
    seen = set()
    for source in (each for split in SPLITS for each in sources.get(split, ())):
        dataset = source.dataset
        if not reads_files(dataset) or not is_local(dataset, dataset.img_prefix, dataset.ann_file):
            continue
        # Test and validation data are usually the same.
        place = (os.path.abspath(dataset.img_prefix or '.'), dataset.ann_file, dataset.with_label)
        if place in seen:
            continue
        seen.add(place)
        if dataset.ann_file:
            listed.append(source)
            continue
        yield from _find_problems_of_folders(source)
        is_compared = not has_classes_of_its_own(config, source.split)
        if is_compared and _numbers_folders(dataset) and os.path.isdir(dataset.img_prefix):
            names = _list_folders(dataset.img_prefix)
            if names:
                numbered.append((source, names))
    for other, names in numbered[1:]:
        yield from _compare_folders(*numbered[0], other, names)
    for source in listed:
        yield from find_problems_of_list(config, source, numbered[0] if numbered else None)


def reads_files(dataset: BaseDataset) -> bool:
    """Whether a dataset reads folders or lists like mmpretrain's CustomDataset."""
    from mmpretrain.datasets import CustomDataset

    return (
        isinstance(dataset, CustomDataset)
        and type(dataset).load_data_list is CustomDataset.load_data_list
    )


def _numbers_folders(dataset: BaseDataset) -> bool:
    """Whether the classes of a dataset are its folders."""
    has_labels = getattr(dataset, 'with_label', False) and not dataset.ann_file
    return has_labels and hasattr(dataset, 'img_prefix')


def _list_folders(folder: str | Path) -> list[str]:
    with os.scandir(folder) as entries:
        # Include hidden folders, as mmengine does.
        return sorted(each.name for each in entries if each.is_dir())


def _find_problems_of_folders(source: DataSource) -> Iterator[Finding]:
    dataset = source.dataset
    kind = type(dataset).__name__
    folder = Path(dataset.img_prefix or '.').absolute()
    if not folder.is_dir():
        yield Finding(f'the folder of {kind} does not exist: {folder}')
        return
    images: dict[str, list[str]] = {}
    others = []
    for path in _walk_files(folder):
        name = path.partition(os.sep)[0] if os.sep in path else ''
        if dataset.is_valid_file(path):
            images.setdefault(name, []).append(path)
        else:
            others.append(path)
    if dataset.with_label:
        names = _list_folders(folder)
        if not names:
            yield Finding(f'{folder} has no folders with images, one for each class')
            return
        hidden = [name for name in names if name[0] == '.']
        if hidden:
            yield Finding(
                f'{folder} has the hidden folders {shorten(hidden)}, which mmpretrain counts as '
                'classes: remove them',
                is_error=False,
            )
        yield from _compare_with_classes(source, folder, names)
        loose = images.pop('', [])
        if loose:
            yield Finding(
                f'{folder} has images outside the class folders, which are ignored: '
                f'{shorten(loose, 3)}',
                is_error=False,
            )
        empty = [name for name in names if name not in images]
        if empty and images and source.split == 'train':
            yield Finding(
                f'{folder} has class folders without images: {shorten(empty)}', is_error=False
            )
    known = ', '.join(sorted(dataset.extensions))
    if not images:
        yield Finding(f'{folder} has no images: their names must end with one of {known}')
    elif others:
        yield Finding(
            f'{folder} has files that are ignored, since their names end with none of {known}: '
            f'{shorten(others, 3)}',
            is_error=False,
        )
    yield from find_unreadable_images(
        source, [folder / path for each in images.values() for path in each]
    )


def _walk_files(folder: Path) -> Iterator[str]:
    """Yields the paths of the files below a folder, relative to it, except hidden ones."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        inner = os.path.relpath(parent, folder)
        for name in sorted(files):
            if name[0] != '.':
                yield name if inner == '.' else os.path.join(inner, name)


def _compare_with_classes(source: DataSource, folder: Path, names: list[str]) -> Iterator[Finding]:
    """Compares the folders with the classes; mmpretrain pairs them by position."""
    classes = source.dataset.metainfo.get('classes')
    if not classes or isinstance(classes, str):
        return
    kind = type(source.dataset).__name__
    if len(classes) != len(names):
        shown = shorten(names, 3)
        text = (
            f'{folder} has folders of {len(names)} classes ({shown}), but {kind} '
            f'expects {len(classes)}: '
        )
        missing = [name for name in classes if name not in names]
        if missing and len(missing) < len(classes):
            text += f'the classes without a folder are {shorten(missing)}'
        else:
            text += 'set metainfo.classes, or type=CustomDataset for any classes'
        yield Finding(text)
        return
    for name, title in zip(names, classes, strict=True):
        if name != title and title in names:
            yield Finding(
                f'{folder}: the images in {name!r} would be called {title!r}, as mmpretrain '
                f'numbers the folders in alphabetical order. Give {source.place} no classes, or '
                f'metainfo.classes in that order: ({shorten(names)})'
            )
            return


def _compare_folders(
    first: DataSource, expected: list[str], other: DataSource, names: list[str]
) -> Iterator[Finding]:
    if names == expected:
        return
    missing = [name for name in expected if name not in names]
    extra = [name for name in names if name not in expected]
    here, there = (os.path.abspath(each.dataset.img_prefix) for each in (first, other))
    shifted = [
        name for name in names if name in expected and names.index(name) != expected.index(name)
    ]
    if shifted or len(names) != len(expected):
        reason = 'mmpretrain numbers the folders of each split for itself'
        if shifted:
            name = shifted[0]
            reason += (
                f', so {name!r} is class {expected.index(name)} in {first.split} and '
                f'{names.index(name)} in {other.split}'
            )
    else:
        reason = 'the others have the same numbers in both'
    parts = []
    if missing:
        parts.append(
            f'lacks the classes {shorten(missing)} of {here} (make empty folders for those '
            f'without images: mkdir {os.path.join(there, missing[0])})'
        )
    if extra:
        parts.append(
            f'has the classes {shorten(extra)}, which {here} lacks (rename or remove them, or make '
            f'empty folders there: mkdir {os.path.join(here, extra[0])})'
        )
    yield Finding(
        f'the folders of {other.split} and {first.split} differ: {there} {" and ".join(parts)}; '
        f'{reason}',
        is_error=bool(shifted) or len(names) != len(expected),
    )
