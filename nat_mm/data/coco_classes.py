"""Compares the classes of a config with the categories of an annotation file."""

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence

from nat_mm.data.coco_file import CocoFile
from nat_mm.data.findings import Finding
from nat_mm.data.sources import DataSource
from nat_mm.errors import shorten

LISTED = 12
"""Up to this many names are shown in full."""


def find_class_problems(
    source: DataSource,
    coco: CocoFile,
    *,
    name: str | None = None,
    key: str = 'classes',
    learned: Sequence[str] | None = None,
) -> Iterator[Finding]:
    """Compares the classes of a dataset with the categories of an annotation file.

    mmdet looks up the categories by name but then pairs them with the classes by position.

    Args:
        source: The dataset.
        coco: An annotation file.
        name: Name of the file's config key for the message; None for the path alone.
        key: Key of metainfo with the classes of the file; ``thing_classes`` for the instances of a
            panoptic dataset.
        learned: The classes that the model learns from another dataset, if any. If these are the
            dataset's, too, it is the file that has to change.

    Yields:
        What is wrong, at most one finding.
    """
    kind = type(source.dataset)
    if not _pairs_by_position(kind):
        return
    classes = source.dataset.metainfo.get(key)
    place = f'{source.place}.metainfo.{key}'
    found = list(coco.category_names)
    if kind.__name__ in ('Objects365V1Dataset', 'Objects365V2Dataset'):
        order = sorted(range(len(found)), key=lambda index: coco.category_ids[index])
        found = [found[index] for index in order]
    where = f'{name} {coco.where}' if name else coco.where
    if isinstance(classes, str):
        yield Finding(
            f'{place} is the text {classes!r}, not a tuple of names: write classes=({classes!r},)'
        )
        return
    if not classes or [each for each in found if each in classes] == list(classes):
        return
    classes = list(classes)
    write = f'write metainfo=dict({key}={_as_tuple(found)}) in {source.place}'
    changes_file = learned is not None and list(learned) == classes
    if changes_file:
        write = f'the model learns these classes: write {_as_tuple(classes)} as categories there'
    if not set(classes) & set(found):
        yield Finding(
            f'{where} has the categories {found[:5]}, but the classes of the config are '
            f'{classes[:5]}: set metainfo.classes of the dataset; {_origin(source)}{write}'
        )
        return
    doubled = [each for each, count in Counter(classes).items() if count > 1]
    missing = [each for each in classes if each not in found]
    twice = [each for each, count in Counter(found).items() if count > 1 and each in classes]
    if doubled:
        reason = f'names {shorten(doubled, LISTED)} more than once'
    elif twice:
        yield Finding(
            f'{where} has several categories named {shorten(twice, LISTED)}: they are '
            f'{shorten(found, LISTED)}; give each its own name'
        )
        return
    elif missing:
        reason = f'has {shorten(missing, LISTED)}, which {where} does not have'
        near = difflib.get_close_matches(missing[0], set(found) - set(classes), n=1)
        if near:
            reason += f' (did you mean {near[0]!r}?)'
    else:
        paired = [each for each in found if each in classes]
        index = next(i for i, each in enumerate(classes) if each != paired[i])
        reason = (
            f'is in a different order from the categories of {where}, and mmdet pairs them by '
            f'position: {classes[index]!r} would be {paired[index]!r}'
        )
        if not changes_file:
            write = f'write metainfo=dict({key}={_as_tuple(paired)}) in {source.place}'
    lists = f'; classes: {shorten(classes, LISTED)}; categories: {shorten(found, LISTED)}'
    yield Finding(f'{place} {reason}{lists}; {_origin(source)}{write}')


def find_differing_classes(sources: Sequence[DataSource]) -> Iterator[Finding]:
    """Compares the classes of all datasets with those of the first, which the model learns.

    Args:
        sources: The datasets, those for training first.

    Yields:
        What is wrong, at most one finding per dataset.
    """
    if not sources:
        return
    first, *others = sources
    expected = first.dataset.metainfo.get('classes')
    for source in others:
        classes = source.dataset.metainfo.get('classes')
        if isinstance(classes, str) or isinstance(expected, str) or not classes or not expected:
            continue
        if list(classes) != list(expected):
            yield Finding(
                f'{source.place}.metainfo.classes is {_difference(classes, expected)}, but that of '
                f'{first.place} is {_difference(expected, classes)}; {_origin(source)}give both '
                'the same'
            )


def _pairs_by_position(kind: type) -> bool:
    """Whether a dataset class loads categories like mmdet's CocoDataset."""
    loader, reader = kind.load_data_list, kind.COCOAPI
    # A custom reader may sort the categories.
    return (
        loader.__module__ in ('mmdet.datasets.coco', 'mmdet.datasets.objects365')
        and reader.__module__.partition('.')[0] == 'mmdet'
    )


def _origin(source: DataSource) -> str:
    """Explains where the classes come from if the config does not set them."""
    metainfo = source.config.get('metainfo') or {}
    if 'classes' in metainfo:
        return ''
    old = " ('CLASSES' is mmdet 2's name for it)" if 'CLASSES' in metainfo else ''
    return f'it has no metainfo.classes{old}, so those of {type(source.dataset).__name__} hold: '


def _as_tuple(names: Sequence[str]) -> str:
    return repr(tuple(names)) if len(names) <= LISTED else f'({shorten(names, LISTED)})'


def _difference(names: Sequence[str], others: Sequence[str]) -> str:
    """Formats a list of names; if it is long, only how it differs from another list."""
    if max(len(names), len(others)) <= LISTED:
        return repr(tuple(names))
    if len(names) != len(others):
        return f'{len(names)} names ({shorten(list(names)[:3])} ...)'
    pairs = enumerate(zip(names, others, strict=True))
    index = next(index for index, (name, other) in pairs if name != other)
    return f'{names[index]!r} at position {index}'
