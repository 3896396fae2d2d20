"""Finds problems with label images, in which the value of a pixel is its class."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmcv.transforms import BaseTransform, LoadAnnotations
from mmengine.config import Config
from mmengine.dataset import BaseDataset

from nat_mm.data.findings import Finding
from nat_mm.data.label_headers import LabelPair, find_label_header_problems
from nat_mm.data.label_values import find_label_value_problems
from nat_mm.data.paths import describe_empty, is_local
from nat_mm.data.sources import DataSource, flatten_transforms, is_known
from nat_mm.inference.images import IMAGE_SUFFIXES, list_paths

_SAMPLE = 100
"""Number of label images of a dataset, evenly spread, whose pixels are read."""


def find_label_image_problems(
    source: DataSource, *, config: Config, thorough: bool = False
) -> Iterator[Finding]:
    """Checks the label images of a dataset, and whether each fits its image.

    These are the labels of mmseg's datasets, and those that complement COCO annotations in mmdet,
    for semantic branches and panoptic segments.

    Args:
        source: The dataset; skipped if it has no label images.
        config: Config of the run, for the number of classes and the values that its heads ignore.
        thorough: Whether to read the pixels of all label images, instead of 100 evenly spread ones.

    Yields:
        What is wrong.
    """
    dataset = source.dataset
    loader = find_loader(dataset)
    key = next((key for key in ('seg_map_path', 'seg') if dataset.data_prefix.get(key)), None)
    is_semantic = hasattr(dataset, 'img_suffix') and hasattr(dataset, 'seg_map_suffix')
    if loader is None or not is_local(dataset, dataset.ann_file, *dataset.data_prefix.values()):
        return
    if key is None:
        if is_semantic:
            yield Finding(
                f'{source.place}.data_prefix has no seg_map_path, the folder of the label images'
            )
        return
    missing = [
        (name, path)
        for name, path in [('ann_file', dataset.ann_file), *dataset.data_prefix.items()]
        if path and not os.path.exists(path)
    ]
    if missing:
        name, path = missing[0]
        name = name if name == 'ann_file' else f'data_prefix.{name}'
        yield Finding(f'{name} of {source.place} does not exist: {os.path.abspath(path)}')
        return
    pairs = _list_pairs(dataset)
    if not pairs:
        yield _describe_no_images(source)
        return
    has_folders = is_semantic and 'img_path' in dataset.data_prefix
    if has_folders and not dataset.ann_file and dataset._indices is None:
        yield from _find_left_out(dataset, key, pairs)
    yield from _find_bad_lines(dataset)
    is_panoptic = 'Panoptic' in type(loader).__name__
    is_ours = is_known(type(loader))
    is_sure = all(is_known(type(each)) for each in flatten_transforms(dataset.pipeline.transforms))
    sound = yield from find_label_header_problems(
        dataset, pairs, is_panoptic=is_panoptic, has_own_loader=not is_ours, is_sure=is_sure
    )
    if is_panoptic or not is_ours or not sound:
        return
    read = sound if thorough else spread(sound, _SAMPLE)
    yield from find_label_value_problems(
        source, loader, read, config=config, of=len(sound), is_sure=is_sure
    )


def spread(values: Sequence[Any], limit: int) -> list[Any]:
    """Picks evenly spread values up to a limit, including the first and the last."""
    if len(values) <= limit:
        return list(values)
    step = (len(values) - 1) / (limit - 1)
    return [values[round(index * step)] for index in range(limit)]


def find_loader(dataset: BaseDataset) -> BaseTransform | None:
    """Finds the transform that loads label images; None if the pipeline has none."""
    for each in flatten_transforms(getattr(dataset.pipeline, 'transforms', ())):
        if isinstance(each, LoadAnnotations) and each.with_seg:
            return each
    return None


def _list_pairs(dataset: BaseDataset) -> list[LabelPair]:
    entries = dataset.load_data_list()
    if dataset._indices is not None:
        indices = dataset._indices
        if isinstance(indices, int):
            entries = entries[:indices] if indices >= 0 else entries[indices:]
        else:
            entries = [entries[index] for index in indices]
    pairs = []
    for entry in entries:
        size = (entry['width'], entry['height']) if 'width' in entry else None
        if entry.get('seg_map_path'):
            images = list_paths(entry, 'img_path', 'img_path2')
            pairs += [LabelPair(image, entry['seg_map_path'], size) for image in images]
    return pairs


def _describe_no_images(source: DataSource) -> Finding:
    dataset = source.dataset
    folder = dataset.data_prefix.get('img_path') or ''
    suffixes = _count_suffixes(folder) if os.path.isdir(folder) and not dataset.ann_file else {}
    if not suffixes:
        return Finding(describe_empty(source.split))
    found = ' and '.join(f'{count} with {suffix!r}' for suffix, count in suffixes.items())
    return Finding(
        f'the {source.split} dataset has no image: in {os.path.abspath(folder)} no name ends with '
        f'{dataset.img_suffix!r}, but {found}; set img_suffix of {source.place}'
    )


def _count_suffixes(folder: str) -> dict[str, int]:
    """Counts the files below a folder by suffix; returns the 5 most frequent, highest first."""
    counts: dict[str, int] = {}
    for _, _, files in os.walk(folder):
        for name in files:
            suffix = os.path.splitext(name)[1]
            if suffix and name[0] != '.':
                counts[suffix] = counts.get(suffix, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1])[:5])


def _find_left_out(dataset: BaseDataset, key: str, pairs: Sequence[LabelPair]) -> Iterator[Finding]:
    """Finds files in the folders that are in none of the pairs."""
    folder, labels = (os.path.abspath(dataset.data_prefix[each]) for each in ('img_path', key))
    others = {
        suffix: count
        for suffix, count in _count_suffixes(folder).items()
        if suffix.lower() in IMAGE_SUFFIXES and not dataset.img_suffix.endswith(suffix)
    }
    if others and folder != labels and not labels.startswith(folder + os.sep):
        found = ' and '.join(f'{count} with {suffix!r}' for suffix, count in others.items())
        yield Finding(
            f'{folder} has images that are ignored, since their names do not end with img_suffix '
            f'{dataset.img_suffix!r}: {found}',
            is_error=False,
        )
    used = {os.path.abspath(pair.label) for pair in pairs}
    alone = sorted(
        path
        for parent, _, files in os.walk(labels)
        for path in (os.path.join(parent, name) for name in files)
        if path.endswith(dataset.seg_map_suffix) and path not in used
    )
    if alone and any(os.path.exists(pair.label) for pair in pairs):
        stem = os.path.relpath(alone[0], labels).removesuffix(dataset.seg_map_suffix)
        more = f' (and {len(alone) - 1} more labels have none)' if len(alone) > 1 else ''
        yield Finding(
            f'{alone[0]} has no image: {os.path.join(folder, stem + dataset.img_suffix)} does not '
            f'exist{more}',
            is_error=False,
        )


def _find_bad_lines(dataset: BaseDataset) -> Iterator[Finding]:
    """Finds bad lines in a list of images, whose names must have no suffix."""
    if not hasattr(dataset, 'img_suffix') or not os.path.isfile(dataset.ann_file):
        return
    lines = Path(dataset.ann_file).read_text(encoding='utf-8', errors='replace').splitlines()
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name:
            yield Finding(f'{dataset.ann_file}, line {number} is empty: remove it')
            return
        suffix = os.path.splitext(name)[1]
        path = os.path.join(dataset.data_prefix.get('img_path') or '', name)
        if suffix and os.path.exists(path) and not os.path.exists(path + dataset.img_suffix):
            yield Finding(
                f'{dataset.ann_file}, line {number}: write {os.path.splitext(name)[0]!r} in place '
                f'of {name!r}, as img_suffix {dataset.img_suffix!r} is added to each line'
            )
            return
