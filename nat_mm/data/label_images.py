"""Finds problems with label images, in which the value of a pixel is its class."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcv.transforms import BaseTransform, LoadAnnotations, LoadImageFromFile
from mmengine.config import Config
from mmengine.dataset import BaseDataset

from nat_mm.data.findings import Finding
from nat_mm.data.image_headers import ImageHeader, find_image_problem, read_header
from nat_mm.data.label_values import describe_colors, find_label_value_problems
from nat_mm.data.paths import is_local
from nat_mm.data.sources import DataSource, is_known
from nat_mm.errors import shorten
from nat_mm.inference.images import IMAGE_SUFFIXES, UnreadableInput

_SAMPLE = 100
"""Number of label images of a dataset, evenly spread, whose pixels are read."""
_GRAY_MODES = ('1', 'L', 'P', 'I', 'I;16', 'I;16B', 'I;16L', 'F')


@dataclass(frozen=True)
class _Pair:
    """An image and its label image.

    Attributes:
        image: Path of the image.
        label: Path of the label image.
        size: Width and height of the image according to its annotations; None if not given.
    """

    image: str
    label: str
    size: tuple[int, int] | None = None


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
    if is_semantic and not dataset.ann_file and dataset._indices is None:
        yield from _find_left_out(dataset, key, pairs)
    yield from _find_bad_lines(dataset)
    is_panoptic = 'Panoptic' in type(loader).__name__
    is_ours = is_known(type(loader))
    is_sure = all(is_known(type(each)) for each in _flatten(dataset.pipeline.transforms))
    sound: list[str] = []
    yield from _compare_headers(
        *(dataset, pairs, sound),
        is_panoptic=is_panoptic,
        has_own_loader=not is_ours,
        is_sure=is_sure,
    )
    if is_panoptic or not is_ours or not sound:
        return
    read = sound if thorough else spread(sound, _SAMPLE)
    yield from find_label_value_problems(
        source,
        loader,
        read,
        config=config,
        of=len(sound),
        is_sure=is_sure,
    )


def spread(values: Sequence[Any], limit: int) -> list[Any]:
    """Picks evenly spread values up to a limit, including the first and the last."""
    if len(values) <= limit:
        return list(values)
    step = (len(values) - 1) / (limit - 1)
    return [values[round(index * step)] for index in range(limit)]


def find_loader(dataset: BaseDataset) -> BaseTransform | None:
    """Finds the transform that loads label images; None if the pipeline has none."""
    for each in _flatten(getattr(dataset.pipeline, 'transforms', ())):
        if isinstance(each, LoadAnnotations) and each.with_seg:
            return each
    return None


def _flatten(transforms: Iterable[Any]) -> Iterator[Any]:
    """Yields transforms, including those inside others such as TestTimeAug and RandomChoice."""
    for each in transforms:
        if isinstance(each, list | tuple):
            yield from _flatten(each)
            continue
        yield each
        for name in ('transforms', 'subroutines'):
            inner = getattr(each, name, None)
            if isinstance(inner, list | tuple):
                yield from _flatten(inner)


def _list_pairs(dataset: BaseDataset) -> list[_Pair]:
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
            images = [entry[key] for key in ('img_path', 'img_path2') if entry.get(key)]
            pairs += [_Pair(image, entry['seg_map_path'], size) for image in images]
    return pairs


def _describe_no_images(source: DataSource) -> Finding:
    dataset = source.dataset
    folder = dataset.data_prefix.get('img_path') or ''
    suffixes = _count_suffixes(folder) if os.path.isdir(folder) and not dataset.ann_file else {}
    if not suffixes:
        return Finding(f'the {source.part} dataset has no image with annotations of its classes')
    found = ' and '.join(f'{count} with {suffix!r}' for suffix, count in suffixes.items())
    return Finding(
        f'the {source.part} dataset has no image: in {os.path.abspath(folder)} no name ends with '
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


def _find_left_out(dataset: BaseDataset, key: str, pairs: Sequence[_Pair]) -> Iterator[Finding]:
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


def _compare_headers(
    dataset: BaseDataset,
    pairs: Sequence[_Pair],
    sound: list[str],
    *,
    is_panoptic: bool,
    has_own_loader: bool,
    is_sure: bool,
) -> Iterator[Finding]:
    """Compares images and labels by their headers, and adds labels that fit to ``sound``.

    JPEGs are only a warning unless ``is_sure``, as an unknown transform might restore the values.
    """
    loads = [each for each in _flatten(dataset.pipeline.transforms) if _is_image_loader(each)]
    flag = str(getattr(loads[0], 'color_type', 'color')) if loads else 'color'
    applies_exif = flag != 'unchanged' and not flag.endswith('ignore_orientation')

    def look(pair: _Pair) -> tuple[str, str] | None:
        return _find_pair_problem(
            pair,
            applies_exif=applies_exif,
            # Custom loaders may read formats that are unknown here.
            reads_image=bool(loads) and pair.size is None,
            modes=('RGB', 'RGBA', 'P') if is_panoptic else _GRAY_MODES,
            has_own_loader=has_own_loader,
        )

    with ThreadPoolExecutor(8) as pool:
        problems = list(pool.map(look, pairs))
    by_kind: dict[str, list[str]] = {}
    for pair, problem in zip(pairs, problems, strict=True):
        if problem is None:
            sound.append(pair.label)
            continue
        kind, text = problem
        if kind == 'missing label' and kind not in by_kind:
            text += _describe_other_suffixes(dataset, pair)
        if kind == 'mode' and kind not in by_kind and not is_panoptic:
            text += describe_colors(pair.label, dataset.metainfo.get('palette'))
        by_kind.setdefault(kind, []).append(text)
    for kind, texts in by_kind.items():
        more = f' (the same with {len(texts)} of {len(pairs)} images)' if len(texts) > 1 else ''
        yield Finding(texts[0] + more, is_error=is_sure or kind != 'jpeg')


def _is_image_loader(transform: Any) -> bool:
    return isinstance(transform, LoadImageFromFile) and is_known(type(transform))


def _find_pair_problem(
    pair: _Pair,
    *,
    applies_exif: bool,
    reads_image: bool,
    modes: Sequence[str],
    has_own_loader: bool,
) -> tuple[str, str] | None:
    """Returns kind and description of a problem with an image or its label; None without one."""
    # If the annotations give sizes, the check of COCO's images compares the images with these.
    if pair.size is None and not os.path.exists(pair.image):
        return 'missing image', f'{pair.image} does not exist'
    if not os.path.exists(pair.label):
        return 'missing label', f'{pair.image} has no label: {pair.label} does not exist'
    size = pair.size
    turned = ''
    if reads_image:
        header = _try_header(pair.image)
        if isinstance(header, ImageHeader):
            size = header.shown_size if applies_exif else (header.width, header.height)
            turned = ', turned by its EXIF orientation' if header.is_sideways else ''
        elif header:
            return 'image', f'{pair.image} {header}'
    if has_own_loader:
        return None
    label = _try_header(pair.label)
    if isinstance(label, str):
        return 'label', f'the label {pair.label} {label}'
    if label is None:
        return None
    if label.is_jpeg:
        return 'jpeg', (
            f'the label {pair.label} is a JPEG, whose compression changes the values of pixels: '
            'labels must be PNGs, made from the annotations and not from the JPEGs'
        )
    if label.mode not in modes:
        return 'mode', _describe_mode(pair.label, label.mode, modes)
    if size is not None and (label.width, label.height) != size:
        return 'size', (
            f'the label {pair.label} is {label.width} x {label.height} pixels, but its image '
            f'{pair.image} is {size[0]} x {size[1]}{turned}'
        )
    return None


def _try_header(path: str) -> ImageHeader | str | None:
    """Returns the header, a description of the problem, or None if only OpenCV can read it."""
    try:
        return read_header(path)
    except UnreadableInput:
        return find_image_problem(path)


def _describe_mode(path: str, mode: str, modes: Sequence[str]) -> str:
    if 'RGB' in modes:
        return (
            f'the panoptic label {path} has one channel ({mode}), but the numbers of its segments '
            'are coded as the colors of an RGB image'
        )
    return f'the label {path} has several channels ({mode}), but must have one of class numbers'


def _describe_other_suffixes(dataset: BaseDataset, pair: _Pair) -> str:
    """Describes which files there are in the folder of a missing label."""
    if not hasattr(dataset, 'seg_map_suffix') or not hasattr(dataset, 'img_suffix'):
        return ''
    folder = os.path.dirname(pair.label)
    if not os.path.isdir(folder):
        return f'. There is no folder {folder}'
    stem = os.path.basename(pair.image).removesuffix(dataset.img_suffix)
    names = sorted(os.listdir(folder))
    same = [name.removeprefix(stem) for name in names if name.startswith(stem)]
    if same:
        return (
            f'. seg_map_suffix is {dataset.seg_map_suffix!r}, but there the name of its label ends '
            f'with {same[0]!r}'
        )
    return f'. There are {len(names)} other files there, such as {shorten(names, 2)}'
