"""Finds problems with the lists of images that give each its class, for classifiers."""

import os
from collections.abc import Iterator
from numbers import Integral
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset

from nat_mm.data.findings import Finding
from nat_mm.data.image_headers import find_unreadable_images
from nat_mm.data.paths import every_evaluator
from nat_mm.data.sources import DataSource, is_known
from nat_mm.errors import shorten


def find_problems_of_list(
    config: Config, source: DataSource, numbered: tuple[DataSource, list[str]] | None
) -> Iterator[Finding]:
    """Checks a list of images, one per line, each followed by a space and its class number.

    Args:
        config: Config of the run, for the number of classes.
        source: The dataset that reads the list.
        numbered: A dataset with the same classes as folders, and their names; None without one.

    Yields:
        What is wrong.
    """
    dataset = source.dataset
    if not os.path.isfile(dataset.ann_file):
        yield Finding(
            f'ann_file of the dataset does not exist: {os.path.abspath(dataset.ann_file)}'
        )
        return
    try:
        lines = Path(dataset.ann_file).read_text(encoding='utf-8').splitlines()
    except UnicodeDecodeError:
        yield Finding(f'{dataset.ann_file} is not a list of images: it is not text in UTF-8')
        return
    if not lines:
        yield Finding(f'{dataset.ann_file} is empty')
        return
    limit = _find_limit(config, dataset)
    paths: dict[str, int | None] = {}
    used = set()
    conflicts = []
    for number, line in enumerate(lines, 1):
        where = f'{dataset.ann_file}, line {number}'
        path, label = line, None
        if dataset.with_label:
            path, *rest = line.strip().rsplit(' ', 1)
            problem = _find_label_problem(line, rest)
            if problem:
                yield Finding(f'{where}: {problem}')
                return
            label = int(rest[0])
            if not _is_class(label, limit):
                yield Finding(
                    f'{where}: the class of {path} is {label}, but {_describe_classes(limit)}'
                    f'{_begins_at_one(lines, limit)}'
                )
                return
        if path in paths and paths[path] != label:
            conflicts.append(
                f'{where}: {path} has the class {label}, but before it had {paths[path]}'
            )
        paths[path] = label
        used.add(label)
    yield from _compare_list(source, paths, numbered)
    yield from find_unreadable_images(source, [Path(dataset.img_prefix, path) for path in paths])
    if conflicts:
        more = f' (and so {len(conflicts) - 1} more lines)' if len(conflicts) > 1 else ''
        yield Finding(conflicts[0] + more, is_error=False)
    unused = sorted(set(range(limit or 0)) - used)
    if dataset.with_label and source.split == 'train' and unused:
        classes = dataset.metainfo.get('classes')
        names = [classes[each] if classes else each for each in unused]
        yield Finding(
            f'{dataset.ann_file} has no image of the classes {shorten(names)}', is_error=False
        )


def find_wrong_labels(config: Config, source: DataSource) -> Iterator[Finding]:
    """Checks the class numbers that mmpretrain's ``MultiLabelDataset`` has for each image.

    Scores of the classes may take their place, and users' transforms may make them.

    Args:
        config: Config of the run, for the number of classes.
        source: The dataset, loaded; others than that are skipped.

    Yields:
        The first that is missing or wrong; test data need none unless they are evaluated.
    """
    from mmpretrain.datasets import MultiLabelDataset

    dataset = source.dataset
    needs_labels = source.split == 'train' or any(every_evaluator(config, source.split))
    is_read = all(is_known(type(each)) for each in source.transforms)
    if not isinstance(dataset, MultiLabelDataset) or not needs_labels or not is_read:
        return
    limit = _find_limit(config, dataset)
    for index in range(len(dataset)):
        entry = dataset.get_data_info(index)
        if 'gt_score' in entry:
            continue
        where = f'{dataset.ann_file}: the gt_label of {entry.get("img_path")}'
        given = entry.get('gt_label')
        labels = [given] if isinstance(given, Integral) else given
        is_list = isinstance(labels, list | tuple | np.ndarray)
        if not is_list or not all(isinstance(label, Integral) for label in labels):
            yield Finding(f'{where} must be class numbers, got {given!r:.80}')
            return
        wrong = [label for label in labels if not _is_class(label, limit)]
        if wrong:
            yield Finding(f'{where} has {wrong[0]}, but {_describe_classes(limit)}')
            return


def _find_limit(config: Config, dataset: BaseDataset) -> int | None:
    """Returns the number of classes, the smaller one if dataset and head differ, or None."""
    classes = dataset.metainfo.get('classes')
    counts = [((config.get('model') or {}).get('head') or {}).get('num_classes')]
    counts.append(len(classes) if classes and not isinstance(classes, str) else None)
    return min((count for count in counts if type(count) is int), default=None)


def _is_class(label: int, limit: int | None) -> bool:
    return label >= 0 and (limit is None or label < limit)


def _describe_classes(limit: int | None) -> str:
    return 'classes are numbered from 0' + ('' if limit is None else f' to {limit - 1}')


def _find_label_problem(line: str, rest: list[str]) -> str | None:
    if not line.strip():
        return 'it is empty: remove it'
    if rest and rest[0].lstrip('-').isdecimal():
        return None
    for separator, name in (('\t', 'a tab'), (',', 'a comma'), (';', 'a semicolon')):
        if line.strip().rpartition(separator)[2].strip().lstrip('-').isdecimal():
            return f'{line!r} has {name} before the number of the class, not a blank'
    return f'{line!r} does not end with a blank and the number of a class, such as "cat/1.jpg 0"'


def _begins_at_one(lines: list[str], limit: int | None) -> str:
    labels = {line.rpartition(' ')[2] for line in lines}
    return '; this list begins at 1' if str(limit) in labels and '0' not in labels else ''


def _compare_list(
    source: DataSource, paths: dict[str, int | None], numbered: tuple[DataSource, list[str]] | None
) -> Iterator[Finding]:
    """Compares the class numbers with those of the same folders in another split of the data."""
    if numbered is None or not source.dataset.with_label:
        return
    other, names = numbered
    for path, label in paths.items():
        folder = Path(path).parts[0]
        if folder in names and names.index(folder) != label:
            yield Finding(
                f'{source.dataset.ann_file}: the class of {path} is {label}, but in {other.split} '
                f'the folder {folder!r} is class {names.index(folder)}, as folders are numbered '
                'in alphabetical order'
            )
            return
