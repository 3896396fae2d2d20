"""Checks the image files of datasets that list them, in COCO's format or another."""

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset

from nat_mm.config.datasets import walk_datasets
from nat_mm.config.objects import type_name
from nat_mm.config.reading import config_mistakes
from nat_mm.data.class_lists import find_wrong_labels
from nat_mm.data.coco_file import CocoFile
from nat_mm.data.findings import Finding
from nat_mm.data.folders import reads_files
from nat_mm.data.image_headers import ImageHeader, read_headers
from nat_mm.data.paths import describe_empty, is_local
from nat_mm.data.progress import Progress
from nat_mm.data.sources import DataSource, is_known
from nat_mm.errors import UserError

TOLERANCE = 2
"""Pixels by which the size of an image may differ from that in the annotations."""

Listed = list[tuple[str, tuple[float, float]]]
"""Path of each image, and its width and height according to the annotations, 0 if not given."""

_KNOWN_CLASSES = {'CocoDataset', 'CocoPanopticDataset', 'LVISV1Dataset', 'Objects365V1Dataset'}
"""Classes whose methods find and filter images like `list_images`."""


def list_images(source: DataSource, coco: CocoFile) -> Listed:
    """Lists the images of a dataset without those that it filters out.

    Args:
        source: The dataset.
        coco: Its annotation file.

    Returns:
        The images; none if the dataset cannot be loaded.
    """
    dataset = source.dataset
    kind = type(dataset)
    methods = (kind.load_data_list, kind.parse_data_info, kind.filter_data)
    if not {method.__qualname__.partition('.')[0] for method in methods} <= _KNOWN_CLASSES:
        return _load_list(dataset)
    kept = np.ones(len(coco.image_ids), bool)
    if not dataset.test_mode and dataset.filter_cfg:
        kept = coco.image_sizes.min(axis=1, initial=np.inf) >= dataset.filter_cfg.get('min_size', 0)
        if dataset.filter_cfg.get('filter_empty_gt'):
            classes = dataset.metainfo.get('classes') or ()
            filled = np.zeros(len(coco.image_ids) + 1, bool)
            filled[coco.images[coco.in_classes(classes)]] = True
            kept &= filled[:-1]
    indices = np.flatnonzero(kept)
    subset = getattr(dataset, '_indices', None)
    if isinstance(subset, int):
        indices = indices[:subset] if subset >= 0 else indices[subset:]
    elif subset is not None:
        indices = indices[[each for each in subset if each < len(indices)]]
    prefix = dataset.data_prefix.get('img') or ''
    return [
        (os.path.join(prefix, coco.file_names[index]), tuple(coco.image_sizes[index].tolist()))
        for index in indices
        if coco.file_names[index]
    ]


def _find_loading_problem(config: Config, source: DataSource) -> Finding | None:
    """Loads a dataset of OpenMMLab's, and reports why that is not possible."""
    dataset = source.dataset
    if not is_known(type(dataset).load_data_list):
        return None
    try:
        with config_mistakes(config), redirect_stdout(io.StringIO()):
            dataset.full_init()
    except UserError as error:
        text = str(error)
        if 'at least one array to concatenate' in text:  # mmengine cannot serialize an empty list
            text = describe_empty(source.split)
        return Finding(text)
    return None


def _load_list(dataset: BaseDataset) -> Listed:
    """Lists the images of a dataset with custom methods to find or filter them."""
    # Other problems show when the dataset is loaded for training.
    with suppress(Exception), redirect_stdout(io.StringIO()):
        dataset.full_init()  # without a warning
        entries = [dataset.get_data_info(index) for index in range(len(dataset))]
        return [
            (each['img_path'], (each.get('width') or 0, each.get('height') or 0))
            for each in entries
        ]
    return []


def find_image_problems(
    source: DataSource, where: str, images: Listed, progress: Progress
) -> Iterator[Finding]:
    """Checks that image files exist, are images, and have the size given in the annotations.

    Args:
        source: The dataset.
        where: What lists the images, for the messages.
        images: Its images.
        progress: Called every now and then.

    Yields:
        What is wrong.
    """
    loader = source.image_loader
    if not images or loader is None:
        return
    if not is_local(source.config) or not is_local(loader, images[0][0]):
        return
    turns = loader.imdecode_backend in (None, 'cv2', 'pillow') and loader.color_type in (
        'color',
        'grayscale',
    )
    unreadable: dict[str, list[str]] = {}
    differing: list[tuple[str, str, bool]] = []
    what = f'images of the {source.split} dataset'
    names = [path for path, _ in images]
    for (path, expected), header in zip(images, read_headers(names, progress, what), strict=True):
        if isinstance(header, str):
            unreadable.setdefault(header, []).append(path)
        if not isinstance(header, ImageHeader):
            continue
        size = header.shown_size if turns else (header.width, header.height)
        gap = max(abs(size[0] - expected[0]), abs(size[1] - expected[1]))
        if gap and min(expected) > 0:
            differing.append((path, _explain_size(size, expected, header), gap > TOLERANCE))
    for reason, paths in unreadable.items():
        more = f', and {len(paths) - 1} more' if len(paths) > 1 else ''
        yield Finding(
            f'a file of the {source.split} dataset {reason}: {os.path.abspath(paths[0])}{more}'
            f'{_hint_at_prefix(source, paths[0]) if reason == "does not exist" else ""}',
            is_error=not loader.ignore_empty,
        )
    for is_far in (True, False):
        found = [each for each in differing if each[2] is is_far]
        if found:
            yield Finding(
                f'{where} has images whose files have another size ({len(found)} of '
                f'{len(images)}, first: {os.path.abspath(found[0][0])}, {found[0][1]})',
                is_far,
            )
    if len(set(names)) < len(names):
        seen: set[str] = set()
        double = next(name for name in names if name in seen or seen.add(name))
        yield Finding(
            f'{where} lists images more than once, under several ids '
            f'({len(names) - len(set(names))} of {len(names)}, first: {double})',
            is_error=False,
        )


def find_problems_of_other_lists(
    config: Config, sources: Mapping[str, Sequence[DataSource]], progress: Progress
) -> Iterator[Finding]:
    """Checks the images of datasets for which there is no check of their own, such as VOCDataset.

    Args:
        config: Config of the run; mmseg's datasets find their images in folders.
        sources: Datasets by split.
        progress: Called every now and then.

    Yields:
        What is wrong.
    """
    if config.default_scope == 'mmseg':
        return
    listed: dict[str, Listed] = {}
    for split, each in sources.items():
        for source in each:
            if not source.is_coco and not _is_checked_or_downloads(config, source.dataset):
                problem = _find_loading_problem(config, source)
                if problem:
                    yield problem
                images = [] if problem else _load_list(source.dataset)
                if not _has_folds(config, split):
                    listed.setdefault(split, []).extend(images)
                yield from find_image_problems(source, source.place, images, progress)
                if images and config.default_scope == 'mmpretrain':
                    yield from find_wrong_labels(config, source)
    yield from find_shared_images(listed)


def _is_checked_or_downloads(config: Config, dataset: BaseDataset) -> bool:
    """Whether a classifier's images have a check of their own, or come from the internet."""
    if config.default_scope != 'mmpretrain':
        return False
    return reads_files(dataset) or hasattr(dataset, 'download')


def _has_folds(config: Config, split: str) -> bool:
    """Whether a split of the data is a fold: some of the images that the dataset inside lists."""
    return any(type_name(each) == 'KFoldDataset' for _, each in walk_datasets(config, split))


def find_shared_images(listed: Mapping[str, Listed]) -> Iterator[Finding]:
    """Finds images that a model is both trained and tested on.

    Args:
        listed: Images by split.

    Yields:
        A warning for each split that shares images with the train split.
    """
    paths = {
        split: {os.path.abspath(path) for path, _ in images} for split, images in listed.items()
    }
    for split, tested in paths.items():
        shared = sorted(tested & paths.get('train', set())) if split != 'train' else []
        if shared:
            yield Finding(
                f'{len(shared)} of {len(tested)} images of the {split} dataset are also trained '
                f'on, so that its metrics say little about other images; first: {shared[0]}',
                is_error=False,
            )


def _explain_size(size: tuple[int, int], expected: tuple[float, float], header: ImageHeader) -> str:
    text = f'{size[0]} x {size[1]}, not {expected[0]:g} x {expected[1]:g}'
    if header.is_sideways and size == header.shown_size:
        text += (
            '; EXIF rotates it by 90 degrees when it is loaded: set '
            "color_type='color_ignore_orientation' in LoadImageFromFile if the annotations were "
            'made without'
        )
    elif size[::-1] == expected:
        text += '; width and height are swapped'
    return text


def _hint_at_prefix(source: DataSource, path: str) -> str:
    """Hints at where a missing file is if the image prefix or the suffix is wrong."""
    prefix = source.dataset.data_prefix.get('img') or ''
    name = os.path.basename(path)
    for place in (os.path.join(prefix, name), os.path.join(source.dataset.data_root or '', name)):
        if place != path and os.path.isfile(place):
            return f'; it is {os.path.abspath(place)}: mend data_prefix.img or file_name'
    stem, _ = os.path.splitext(path)
    for suffix in ('.jpg', '.JPG', '.jpeg', '.JPEG', '.png', '.PNG'):
        if os.path.isfile(stem + suffix):
            return f'; there is {os.path.abspath(stem + suffix)}'
    return ''
