"""Finds problems with datasets in COCO's format and with the annotations of evaluators."""

import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from mmengine.config import Config
from mmengine.registry import METRICS

from nat_mm.config.objects import find_class
from nat_mm.data.class_counts import has_fixed_classes
from nat_mm.data.coco_classes import find_class_problems, find_differing_classes
from nat_mm.data.coco_file import (
    NO_MASK,
    PARTLY_SHORT,
    SHORT,
    TINY,
    CocoFile,
    NotCocoError,
    read_coco,
)
from nat_mm.data.findings import Finding
from nat_mm.data.listed_images import (
    Listed,
    find_image_problems,
    find_shared_images,
    list_images,
)
from nat_mm.data.paths import describe_empty, find_evaluators, is_local
from nat_mm.data.progress import Progress, no_progress
from nat_mm.data.sources import DataSource
from nat_mm.data.summaries import Summary, summarize_coco

TOLERANCE = 2
"""Pixels by which a box may extend beyond its image without a warning."""

BOXES_ONLY = (
    'to train boxes without masks, set model.roi_head.mask_head=None, with_mask=False in '
    "LoadAnnotations and metric='bbox' in the evaluators"
)


def check_coco(
    config: Config,
    sources: Mapping[str, Sequence[DataSource]],
    *,
    images: bool = True,
    progress: Progress = no_progress,
) -> Iterator[Finding | Summary]:
    """Checks a config's datasets in COCO's format and their evaluators.

    Args:
        config: Config of the run.
        sources: Datasets by split.
        images: Whether to check the image files.
        progress: Called every now and then.

    Yields:
        What is wrong, and what each dataset contains.
    """
    reader = _Reader(progress)
    shown: dict[str, Listed] = {}
    titles: set[tuple] = set()
    learned = None
    for split, each in sources.items():
        used = [source for source in each if source.is_coco]
        files = {}
        background = 0
        for source in used:
            path = source.dataset.ann_file
            if not path:
                yield Finding(f'{source.place} has no ann_file, the JSON of its annotations')
            if not is_local(source.config) or not os.path.isfile(path):
                continue
            coco = yield from reader.read(path, is_panoptic=is_panoptic(source))
            if coco is None:
                continue
            files[source.place] = coco
            yield from find_entry_problems(coco)
            if not _is_unlabeled(source):
                yield from find_class_problems(source, coco, learned=learned)
                background += yield from find_annotation_problems(
                    source, coco, is_alone=len(each) == 1
                )
            classes = tuple(source.dataset.metainfo.get('classes') or ())
            learned = learned or classes
            if (coco.path, classes) not in titles:
                titles.add((coco.path, classes))
                yield summarize_coco(coco, f'{source.place}: {path}', classes)
            listed = list_images(source, coco)
            shown.setdefault(split, []).extend(listed)
            if images:
                yield from find_image_problems(source, coco.where, listed, progress)
        if each and background == len(each):
            yield Finding(describe_empty(split))
        for place, evaluator in find_evaluators(config, split):
            kind = find_class(METRICS, evaluator, config)
            names = {each.__name__ for each in getattr(kind, '__mro__', ())}
            if names & {'CocoMetric', 'CocoPanopticMetric'}:
                yield from _find_evaluator_problems(
                    place, evaluator, 'CocoPanopticMetric' in names, used, files, reader
                )
    if has_fixed_classes(config):
        yield from find_differing_classes(
            [source for each in sources.values() for source in each if source.is_coco]
        )
    yield from find_shared_images(shown)


def is_panoptic(source: DataSource) -> bool:
    """Whether a dataset reads COCO's panoptic format."""
    module = sys.modules.get('mmdet.datasets.coco_panoptic')
    return module is not None and isinstance(source.dataset, module.CocoPanopticDataset)


def _is_unlabeled(source: DataSource) -> bool:
    """Whether a model learns from a dataset's images alone, as in semi-supervised training."""
    module = sys.modules.get('mmdet.datasets.transforms')
    return module is not None and any(
        isinstance(each, module.LoadEmptyAnnotations) for each in source.transforms
    )


class _Reader:
    """Reads each annotation file once, and reports once what is wrong with its layout."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.files: dict[tuple[str, bool], CocoFile | None] = {}

    def read(self, path: str, *, is_panoptic: bool) -> Generator[Finding, None, CocoFile | None]:
        """Yields what is wrong with a file's layout, and returns the file if it could be read."""
        key = os.path.realpath(path), is_panoptic
        if key not in self.files:
            self.files[key] = None
            try:
                self.files[key] = read_coco(path, is_panoptic=is_panoptic, progress=self.progress)
            except (NotCocoError, OSError) as error:
                yield Finding(f'annotation file {os.path.abspath(path)} {error}')
        return self.files[key]


def find_entry_problems(coco: CocoFile) -> Iterator[Finding]:
    """Lists the malformed entries of a file."""
    for faults, total in (
        (coco.image_faults, len(coco.image_ids)),
        (coco.faults, len(coco.ids)),
        (coco.category_faults, len(coco.category_ids)),
    ):
        for line in faults.describe(total):
            yield Finding(f'{coco.where} {line}')


def find_annotation_problems(
    source: DataSource, coco: CocoFile, *, is_alone: bool
) -> Generator[Finding, None, bool]:
    """Lists annotations that a dataset cannot use or would leave out.

    Args:
        source: The dataset.
        coco: Its annotation file.
        is_alone: Whether it is the only dataset of its split. Next to others, a training dataset
            without objects is of use unless it drops its images: they are the background.

    Yields:
        What is wrong.

    Returns:
        Whether it is such a background, which needs others with objects.
    """
    is_training = not source.dataset.test_mode
    drops_images = (source.dataset.filter_cfg or {}).get('filter_empty_gt', False)
    needs_objects = is_training and (is_alone or drops_images)
    if not coco.has_annotations:
        if needs_objects:
            yield Finding(f"{coco.where} is not COCO: it has no list 'annotations'")
        return is_training and not needs_objects
    say = partial(_summarize, coco)
    unknown = coco.categories < 0
    yield from say('has annotations whose category_id is not in categories', unknown)
    orphaned = coco.images < 0
    yield from say('has annotations whose image_id is not in images', orphaned, is_error=False)
    width, height = coco.boxes[:, 2:].T
    negative = (width < 0) | (height < 0)
    if _are_corners(coco):
        yield from say(
            'has boxes that are x1, y1, x2, y2: COCO has x, y, width, height', _sticks_out(coco)
        )
    else:
        yield from say('has boxes with negative width or height', negative)
        yield from say(
            f'has boxes that stick out of their image by more than {TOLERANCE} pixels',
            _sticks_out(coco),
            is_error=False,
        )
    empty = ~negative & ((width < 1) | (height < 1))
    hint = ''
    if len(empty) and empty.mean() > 0.5 and np.nanmax(coco.boxes) <= 1:
        hint = '; they look like fractions of the image, COCO has pixels'
    yield from say(
        f'has boxes smaller than a pixel, which mmdet ignores{hint}', empty, is_error=False
    )
    yield from say(
        'has annotations whose area is not positive, which mmdet ignores',
        coco.areas <= 0,
        is_error=False,
    )
    if is_panoptic(source):
        classes = source.dataset.metainfo.get('classes') or ()
        outside = ~unknown & ~coco.in_classes(classes)
        yield from say('has segments of categories that are not in metainfo.classes', outside)
    used = _used(source, coco)
    is_empty = not used.any()
    if needs_objects and is_empty:
        yield Finding(describe_empty(source.split))
    elif not is_training and is_empty:
        yield Finding(
            f'{coco.where} has no annotations of the classes, so that metrics will be -1',
            is_error=False,
        )
    if wants_masks(source):
        yield from _find_mask_problems(coco, used, say)
    return is_training and is_empty and not needs_objects


def _find_mask_problems(
    coco: CocoFile, used: np.ndarray, say: Callable[..., Iterator[Finding]]
) -> Iterator[Finding]:
    for line in coco.mask_faults.describe(len(coco.ids)):
        yield Finding(f'{coco.where} {line}')
    yield from say(
        f'has annotations without segmentation, but the pipeline loads masks; {BOXES_ONLY}',
        used & (coco.masks == NO_MASK),
    )
    short = used & ((coco.masks == SHORT) | (coco.masks == TINY))
    yield from say(
        'has polygons of fewer than 6 or an odd number of coordinates, whose objects mmdet ignores',
        short,
        is_error=bool(short.any()) and bool((short == used).all()),
    )
    yield from say(
        'has polygons of fewer than 6 or an odd number of coordinates, which mmdet ignores',
        used & (coco.masks == PARTLY_SHORT),
        is_error=False,
    )


def _summarize(
    coco: CocoFile, what: str, wrong: np.ndarray, *, is_error: bool = True
) -> Iterator[Finding]:
    """Summarizes the annotations with the same problem in one finding."""
    count = int(wrong.sum())
    if count:
        first = int(wrong.argmax())
        example = f'id {coco.ids[first]!r:.40}'
        image = coco.images[first]
        if image >= 0 and coco.file_names[image]:
            example += f' of {coco.file_names[image]}'
        box = coco.boxes[first]
        if what.startswith('has boxes'):
            example += f', bbox {[float(f"{value:g}") for value in box]}'
        yield Finding(
            f'{coco.where} {what} ({count} of {len(coco.ids)}, first: {example})', is_error
        )


def _sizes(coco: CocoFile) -> np.ndarray:
    """Returns [annotations, 2]: width and height of each image; NaN if the image is unknown."""
    if not len(coco.image_sizes):
        return np.full((len(coco.images), 2), np.nan)
    sizes = coco.image_sizes[coco.images]
    sizes[coco.images < 0] = np.nan
    return sizes


def _sticks_out(coco: CocoFile) -> np.ndarray:
    sizes = _sizes(coco)
    ends = coco.boxes[:, :2] + coco.boxes[:, 2:]
    return ((coco.boxes[:, :2] < -TOLERANCE) | (ends > sizes + TOLERANCE)).any(axis=1)


def _are_corners(coco: CocoFile) -> bool:
    """Whether the boxes consist of two corners instead of a corner and a size."""
    starts, ends, sizes = coco.boxes[:, :2], coco.boxes[:, 2:], _sizes(coco)
    fit = (ends > starts).all(axis=1) & (ends <= sizes + TOLERANCE).all(axis=1)
    out = _sticks_out(coco)
    return len(out) >= 3 and bool(out.mean() > 0.2) and bool(fit.mean() > 0.99)


def _used(source: DataSource, coco: CocoFile) -> np.ndarray:
    """Tells for each annotation whether mmdet makes an instance of it."""
    classes = source.dataset.metainfo.get('classes') or ()
    sizes = _sizes(coco)
    starts, ends = coco.boxes[:, :2], coco.boxes[:, :2] + coco.boxes[:, 2:]
    inside = (np.minimum(ends, sizes) > np.maximum(starts, 0)).all(axis=1)
    large = (coco.boxes[:, 2:] >= 1).all(axis=1)
    return coco.in_classes(classes) & inside & large & ~(coco.areas <= 0) & ~coco.ignored


def wants_masks(source: DataSource) -> bool:
    """Whether a dataset's pipeline loads masks."""
    # Panoptic datasets have their masks in PNGs.
    return not is_panoptic(source) and any(
        getattr(each, 'with_mask', False) for each in source.transforms
    )


def _find_evaluator_problems(
    place: str,
    evaluator: Mapping,
    of_segments: bool,
    sources: Sequence[DataSource],
    files: Mapping[str, CocoFile],
    reader: _Reader,
) -> Iterator[Finding]:
    path = evaluator.get('ann_file')
    if not path or not is_local(evaluator) or not os.path.isfile(path):
        return
    coco = yield from reader.read(path, is_panoptic=of_segments)
    if coco is None:
        return
    if all(coco is not each for each in files.values()):
        yield from find_entry_problems(coco)
        for source in sources[:1]:
            # Instance annotations have categories only for things.
            key = 'classes' if is_panoptic(source) is of_segments else 'thing_classes'
            yield from find_class_problems(source, coco, name=f'{place}.ann_file', key=key)
        if files and len(files) == len(sources):
            yield from _find_other_images(place, coco, list(files.values()))
    if not coco.has_annotations and not evaluator.get('format_only'):
        yield Finding(f'{place}: {coco.where} has no annotations to compare with')
    metrics = evaluator.get('metric') or 'bbox'
    if 'segm' in ([metrics] if isinstance(metrics, str) else metrics) and not of_segments:
        say = partial(_summarize, coco)
        for line in coco.mask_faults.describe(len(coco.ids)):
            yield Finding(f'{coco.where} {line}')
        yield from say(
            f'has annotations without segmentation, but {place} compares masks; {BOXES_ONLY}',
            coco.masks == NO_MASK,
        )
        yield from say(
            f'has polygons of fewer than 6 coordinates, but {place} compares masks',
            coco.masks == TINY,
        )


def _find_other_images(place: str, coco: CocoFile, files: Sequence[CocoFile]) -> Iterator[Finding]:
    """Compares the images of an evaluator's file with those of the datasets."""
    tested = {
        identity: name
        for file in files
        for identity, name in zip(file.image_ids, file.file_names, strict=True)
    }
    expected = dict(zip(coco.image_ids, coco.file_names, strict=True))
    paths = ', '.join(os.path.abspath(file.path) for file in files)
    if tested.keys() != expected.keys() or any(
        name and tested[identity] and os.path.basename(name) != os.path.basename(tested[identity])
        for identity, name in expected.items()
    ):
        yield Finding(
            f'{place}.ann_file {os.path.abspath(coco.path)} has other images than the dataset, '
            f'which reads {paths}: write {place}.ann_file={paths}'
        )
