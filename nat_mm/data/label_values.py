"""Compares the values of label images with the classes."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmengine.config import Config

from nat_mm.compat.postscript import open_image
from nat_mm.config.objects import type_name
from nat_mm.data.findings import Finding
from nat_mm.data.paths import find_evaluators
from nat_mm.data.sources import DataSource
from nat_mm.errors import shorten

_CONVERT = 'nat-mm convert-labels LABELS CONVERTED --map'
_MOST_SHOWN = 8


@dataclass(frozen=True)
class _Limits:
    """Which label values are classes and which are ignored.

    Attributes:
        classes: Number of classes.
        names: Names of the classes.
        ignored: Values ignored by all heads in training, and by the metrics otherwise.
        ignored_by: The value that each head and metric ignores, by its key in the config.
    """

    classes: int
    names: Sequence[str]
    ignored: frozenset[int]
    ignored_by: Mapping[str, int]


def find_label_value_problems(
    source: DataSource,
    loader: Any,
    paths: Sequence[str],
    *,
    config: Config,
    of: int,
    is_sure: bool,
) -> Iterator[Finding]:
    """Reads label images like the pipeline, and compares their values with the classes.

    Args:
        source: Their dataset.
        loader: The pipeline's transform that loads them.
        paths: The label images.
        config: Config of the run.
        of: Number of label images of the dataset.
        is_sure: Whether the pipeline has only known transforms; others might change the values, so
            that problems are reported as warnings.

    Yields:
        What is wrong.
    """
    dataset = source.dataset
    limits = _find_limits(source, config)
    if limits is None:
        return
    if loader.imdecode_backend != 'pillow':
        changed = next((path for path in paths if _is_changed_by_opencv(path)), None)
        if changed:
            yield Finding(
                f"imdecode_backend {loader.imdecode_backend!r} of {source.place}'s "
                f'{type(loader).__name__} turns the values of palette and 1-bit PNGs such as '
                f"{changed} into colors: write imdecode_backend='pillow'"
            )
            return
    yield from _find_odd_padding(source, config)
    own = getattr(loader, 'reduce_zero_label', None)
    reduces = bool(getattr(dataset, 'reduce_zero_label', own))
    if own is not None and bool(own) != reduces:
        yield Finding(
            f'reduce_zero_label is {reduces} in {source.place}, but {own} in its '
            f'{type(loader).__name__}: leave it out there'
        )
        return
    found = _read_values(paths, loader.imdecode_backend)
    if not found:
        return
    wide = [value for value in found if value > 255 and value != 65535]
    if wide:
        path = found[wide[0]]
        yield Finding(
            f'the label {path} has values of 16 bits, such as {wide[0]}, which mmseg truncates to '
            f'{wide[0] % 256}: convert with {_CONVERT} {wide[0]}=CLASS',
            is_error=is_sure,
        )
        return
    label_map = getattr(dataset, 'label_map', None)
    classes = {value: _class_of(value, reduces=reduces, label_map=label_map) for value in found}
    beyond = [
        value
        for value, number in classes.items()
        if number >= limits.classes and number not in limits.ignored
    ]
    present = {number for number in classes.values() if number < limits.classes}
    present -= limits.ignored
    if set(found) == {0, 255} and limits.classes > 1:
        yield Finding(
            _describe_masks(source, found[255], limits, reduces=reduces), is_error=is_sure
        )
        return
    if beyond:
        number = classes[beyond[0]]
        others = [key for key, value in limits.ignored_by.items() if value == number]
        yield Finding(
            _describe_beyond(source, found, beyond, classes, limits, others, reduces=reduces),
            # A metric only counts the pixels that heads ignore as mistakes.
            is_error=is_sure and (source.split == 'train' or not others),
        )
        return
    if not present:
        yield Finding(_describe_nothing_to_learn(source, found, reduces=reduces), is_error=is_sure)
        return
    yield from _find_unused(
        source, present, set(found), limits, reduces=reduces, read=len(paths), of=of
    )


def describe_colors(path: str, palette: Sequence[Sequence[int]] | None) -> str:
    """Explains how to convert a label image with colors.

    Args:
        path: The label image.
        palette: Colors of the classes.

    Returns:
        Text to append to a message about the image.
    """
    try:
        with open_image(path) as image:
            pixels = np.asarray(image.convert('RGB')).reshape(-1, 3)
    except Exception:
        return ''
    colors = [tuple(map(int, color)) for color in np.unique(pixels, axis=0)]
    if all(len(set(color)) == 1 for color in colors):
        return '. They are equal: keep one with nat-mm convert-labels LABELS CONVERTED'
    known = [tuple(color) for color in palette or ()]
    if set(colors) <= set(known):
        numbers = {color: known.index(color) for color in known}
    else:
        numbers = dict.fromkeys(colors, 'CLASS')
    shown = ' '.join(
        f'{",".join(map(str, color))}={numbers[color]}' for color in list(numbers)[:_MOST_SHOWN]
    )
    more = '' if len(numbers) <= _MOST_SHOWN else f' ... (it has {len(colors)} colors)'
    return f'. Give each color the number of its class: {_CONVERT} {shown}{more}'


def ignored_values(config: Config) -> dict[str, int]:
    """Returns the label value that each head of a segmentor ignores, by its key in the config."""
    ignored = {}
    for name in ('decode_head', 'auxiliary_head'):
        heads = config.model.get(name) or ()
        for index, head in enumerate([heads] if isinstance(heads, dict) else heads):
            place = f'model.{name}' if isinstance(heads, dict) else f'model.{name}.{index}'
            ignored[f'{place}.ignore_index'] = head.get('ignore_index', 255)
    return ignored


def _find_limits(source: DataSource, config: Config) -> _Limits | None:
    names = source.dataset.metainfo.get('classes') or ()
    if not hasattr(source.dataset, 'reduce_zero_label'):
        # For a semantic branch of mmdet, only the model knows the classes.
        roi_head = config.model.get('roi_head') or {}
        head = config.model.get('semantic_head') or roi_head.get('semantic_head') or {}
        count = head.get('num_classes')
        ignored = (head.get('loss_seg') or {}).get('ignore_index', 255)
        return _Limits(count, (), frozenset([ignored]), {}) if type(count) is int else None
    if isinstance(names, str) or not names:
        return None
    by_head = ignored_values(config)
    ignored = set.intersection(*({value} for value in by_head.values())) if by_head else {255}
    if source.split != 'train':
        evaluators = [each for _, each in find_evaluators(config, source.split)]
        metrics = [each for each in evaluators if type_name(each).endswith('IoUMetric')]
        ignored = {each.get('ignore_index', 255) for each in metrics} or {*by_head.values(), 255}
        by_head[f'{source.split}_evaluator.ignore_index'] = min(ignored)
    return _Limits(len(names), names, frozenset(ignored), by_head)


def _find_odd_padding(source: DataSource, config: Config) -> Iterator[Finding]:
    """Checks that the labels of padding are ignored if images are padded for batches."""
    if source.split != 'train' or config.default_scope != 'mmseg':
        return
    settings = config.model.get('data_preprocessor') or config.get('data_preprocessor') or {}
    padding = settings.get('seg_pad_val', 255)
    others = [key for key, value in ignored_values(config).items() if value != padding]
    pads = settings.get('size') is not None or settings.get('size_divisor') is not None
    if others and pads and padding >= len(source.dataset.metainfo.get('classes') or ()):
        yield Finding(
            f'{" and ".join(others)} differ from model.data_preprocessor.seg_pad_val, which is '
            f'{padding}: training fails where an image is padded. Set seg_pad_val to the same',
            is_error=False,
        )


def _is_changed_by_opencv(path: str) -> bool:
    with open_image(path) as image:
        return image.mode in ('P', '1')


def _read_values(paths: Sequence[str], backend: str) -> dict[int, str]:
    """Reads the values of label images, ascending, each with the first image that contains it."""

    def read(path: str) -> np.ndarray:
        try:
            image = mmcv.imfrombytes(Path(path).read_bytes(), flag='unchanged', backend=backend)
        except Exception:
            return np.zeros(0, int)
        if image.dtype in (np.uint8, np.uint16):
            return np.flatnonzero(np.bincount(image.reshape(-1)))
        return np.unique(image).astype(int)

    found: dict[int, str] = {}
    with ThreadPoolExecutor(4) as pool:
        for path, values in zip(paths, pool.map(read, paths), strict=True):
            for value in values.tolist():
                found.setdefault(value, path)
    return dict(sorted(found.items()))


def _class_of(value: int, *, reduces: bool, label_map: Mapping[int, int] | None) -> int:
    """Converts a label value to a class like mmseg's LoadAnnotations."""
    value %= 256
    if reduces:
        value = 255 if value in (0, 255) else value - 1
    return (label_map or {}).get(value, value)


def _describe_masks(source: DataSource, path: str, limits: _Limits, *, reduces: bool) -> str:
    what = 'is ignored, as 0 is' if reduces else 'is ignored'
    if 255 not in limits.ignored:
        what = f'is beyond the {limits.classes} classes'
    return (
        f'the labels of {source.place} are masks of 0 and 255, such as {path}, and 255 {what}: '
        f'convert them with {_CONVERT} 255=1'
        + (', and set reduce_zero_label=False' if reduces else '')
    )


def _describe_nothing_to_learn(
    source: DataSource, found: Mapping[int, str], *, reduces: bool
) -> str:
    *_, last = found
    if len(found) == 1:
        what = f'the value {last}, which is ignored'
    else:
        what = f'the values {shorten(list(found))}, which are ignored'
    advice = ''
    if last == 255:
        advice = f'. If 255 is a class, convert them with {_CONVERT} 255=CLASS'
    elif reduces and 0 in found:
        advice = '. If 0 is a class, set reduce_zero_label=False'
    return f'the labels of {source.place} have only {what}, such as {found[last]}{advice}'


def _describe_beyond(
    source: DataSource,
    found: Mapping[int, str],
    beyond: Sequence[int],
    classes: Mapping[int, int],
    limits: _Limits,
    ignored_by: Sequence[str],
    *,
    reduces: bool,
) -> str:
    first = beyond[0]
    path = found[first]
    count = limits.classes
    values = f'the value {first}' if len(beyond) == 1 else f'the values {shorten(beyond)}'
    begin = 1 if reduces else 0
    span = f'from {begin} to {count - 1 + begin}'
    text = (
        f'the label {path} has {values}, but the {count} classes of {source.place} are the values '
        f'{span}' + (', as reduce_zero_label=True ignores 0' if reduces else '')
    )
    if classes[first] == 255 and not ignored_by:
        what = '' if first == 255 else ', of which reduce_zero_label=True makes 255'
        return (
            f'the label {path} has the value {first}{what}, but what is ignored is '
            f'{min(limits.ignored)} ({", ".join(limits.ignored_by)}): use 255 for both'
        )
    if ignored_by:
        others = [key for key in limits.ignored_by if key not in ignored_by]
        return (
            f'{text}. {" and ".join(ignored_by)} {"is" if len(ignored_by) == 1 else "are"} '
            f'{classes[first]}: set {" and ".join(others)} to it too'
        )
    if not reduces and beyond == [count] and 0 not in found:
        return f'{text}. If the first class is 1, set reduce_zero_label=True'
    if not reduces and beyond == [count]:
        return (
            f'{text}. If 0 is to be ignored, set reduce_zero_label=True; if {count} is, '
            f'decode_head.ignore_index={count} in each head and in the evaluator; otherwise '
            'metainfo.classes lacks a class'
        )
    if len(found) <= count + 2 and _are_gray_levels(list(found)):
        shown = ' '.join(f'{value}={number}' for number, value in enumerate(found))
        return f'{text}. They look like gray levels for viewing: convert with {_CONVERT} {shown}'
    return (
        f'{text}. Add the missing classes to metainfo.classes, or ignore such pixels: '
        f'{_CONVERT} {first}=255'
    )


def _are_gray_levels(values: Sequence[int]) -> bool:
    """Whether the values are spread over the range of a grayscale image."""
    values = [value for value in values if value not in (0, 255)]
    return max(values) >= 100 and min(np.diff([0, *values])) >= 10


def _find_unused(
    source: DataSource,
    present: set[int],
    values: set[int],
    limits: _Limits,
    *,
    reduces: bool,
    read: int,
    of: int,
) -> Iterator[Finding]:
    """Finds classes that occur in no label image."""
    missing = [number for number in range(limits.classes) if number not in present]
    names = [limits.names[number] if limits.names else number for number in missing]
    where = f'in none of the {read} labels of {source.place}' + (
        f' that were read, of {of}' if read < of else ''
    )
    last = limits.classes - 1
    # A sample may lack several classes by chance.
    tells = read == of or len(missing) == 1
    if tells and reduces and 0 in values and last in missing and 0 not in missing:
        yield Finding(
            f'class {last} {names[-1]!r} is {where}, and their value 0 is ignored: if 0 is the '
            'first class, set reduce_zero_label=False',
            is_error=False,
        )
    elif tells and not reduces and 0 in missing and last not in missing:
        yield Finding(
            f'class 0 {names[0]!r} is {where}: if 1 is the first class, set reduce_zero_label=True',
            is_error=False,
        )
    elif missing and read == of:
        yield Finding(
            f'the {"class" if len(names) == 1 else "classes"} {shorten(names)} '
            f'{"is" if len(names) == 1 else "are"} {where}',
            is_error=False,
        )
