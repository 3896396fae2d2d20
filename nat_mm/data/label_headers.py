"""Compares the headers of label images with those of their images."""

import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import BaseDataset

from nat_mm.data.findings import Finding
from nat_mm.data.image_headers import ImageHeader, try_header
from nat_mm.data.label_values import describe_colors
from nat_mm.data.sources import flatten_transforms, is_known
from nat_mm.errors import shorten

_GRAY_MODES = ('1', 'L', 'P', 'I', 'I;16', 'I;16B', 'I;16L', 'F')


@dataclass(frozen=True)
class LabelPair:
    """An image and its label image.

    Attributes:
        image: Path of the image.
        label: Path of the label image.
        size: Width and height of the image according to its annotations; None if not given.
    """

    image: str
    label: str
    size: tuple[int, int] | None = None


def find_label_header_problems(
    dataset: BaseDataset,
    pairs: Sequence[LabelPair],
    *,
    is_panoptic: bool,
    has_own_loader: bool,
    is_sure: bool,
) -> Generator[Finding, None, list[str]]:
    """Compares images and labels by their headers.

    Args:
        dataset: The dataset, with its pipeline.
        pairs: Its images and labels.
        is_panoptic: Whether the labels are panoptic segments, coded as colors.
        has_own_loader: Whether a user's own transform loads the labels, which may have any format.
        is_sure: Whether the pipeline has only known transforms; others might restore the values of
            JPEGs, so that these are reported as warnings.

    Yields:
        What is wrong.

    Returns:
        The paths of the labels that fit.
    """
    transforms = flatten_transforms(dataset.pipeline.transforms)
    loads = [each for each in transforms if _is_image_loader(each)]
    flag = str(getattr(loads[0], 'color_type', 'color')) if loads else 'color'
    applies_exif = flag != 'unchanged' and not flag.endswith('ignore_orientation')

    def look(pair: LabelPair) -> tuple[str, str] | None:
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
    sound = []
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
    return sound


def _is_image_loader(transform: Any) -> bool:
    return isinstance(transform, LoadImageFromFile) and is_known(type(transform))


def _find_pair_problem(
    pair: LabelPair,
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
        header = try_header(pair.image)
        if isinstance(header, ImageHeader):
            size = header.shown_size if applies_exif else (header.width, header.height)
            turned = ', turned by its EXIF orientation' if header.is_sideways else ''
        elif header:
            return 'image', f'{pair.image} {header}'
    if has_own_loader:
        return None
    label = try_header(pair.label)
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


def _describe_mode(path: str, mode: str, modes: Sequence[str]) -> str:
    if 'RGB' in modes:
        return (
            f'the panoptic label {path} has one channel ({mode}), but the numbers of its segments '
            'are coded as the colors of an RGB image'
        )
    return f'the label {path} has several channels ({mode}), but must have one of class numbers'


def _describe_other_suffixes(dataset: BaseDataset, pair: LabelPair) -> str:
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
