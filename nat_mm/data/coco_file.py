"""Reads COCO annotation files into columns, without keeping their objects in memory."""

import json
import math
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from nat_mm.data.progress import Progress

NO_MASK, MASK, PARTLY_SHORT, SHORT, TINY = range(5)
"""Values of `CocoFile.masks`.

mmdet leaves out polygons with fewer than 6 or an odd number of coordinates: in `PARTLY_SHORT` masks
these are some of the polygons, in `SHORT` masks all. In `TINY` masks, the first polygon also has
fewer than 5 coordinates, so that pycocotools mistakes it for something else.
"""

_MAGIC = {
    b'\x1f\x8b': 'it is packed by gzip: unpack it',
    b'PK\x03\x04': 'it is a zip archive: unpack it',
    b'\xef\xbb\xbf': 'it begins with a byte order mark: save it as UTF-8 without one',
    b'\xff\xfe': 'it is UTF-16: save it as UTF-8',
    b'\xfe\xff': 'it is UTF-16: save it as UTF-8',
}
_NUMBERS = {int, float}
_STEP = 20_000


class NotCocoError(ValueError):
    """A file cannot be read as COCO; the message says why, but does not name the file."""


class Faults:
    """Counts the faults in a file's entries by kind, and keeps the first example of each."""

    def __init__(self) -> None:
        self.kinds: dict[str, list] = {}

    def add(self, kind: str, example: str) -> None:
        """Counts a faulty entry."""
        found = self.kinds.setdefault(kind, [0, example])
        found[0] += 1

    def describe(self, total: int) -> Iterator[str]:
        """Yields one line per kind.

        Args:
            total: Number of entries.
        """
        for kind, (count, example) in self.kinds.items():
            yield f'{kind} ({count} of {total}, first: {example})'


@dataclass
class CocoFile:
    """The content of an annotation file; in panoptic files, segments count as annotations.

    Attributes:
        path: The file.
        has_annotations: Whether it has a list of annotations.
        image_ids: Id of each image.
        file_names: File name of each image.
        image_sizes: [images, 2], width and height; 0 if the file has none.
        category_ids: Id of each category.
        category_names: Name of each category.
        ids: Id of each annotation.
        images: Index of each annotation's image; -1 if the file does not contain it.
        categories: Index of each annotation's category; -1 if the file does not contain it.
        boxes: [annotations, 4], left, top, width, height; NaN if an annotation has none.
        areas: Area of each annotation; NaN if it has none.
        crowds: Whether each annotation is a crowd.
        ignored: Whether mmdet skips each annotation.
        masks: For each annotation, `NO_MASK`, `MASK`, `PARTLY_SHORT`, `SHORT` or `TINY`.
        image_faults: What is wrong with images.
        category_faults: What is wrong with categories.
        faults: What is wrong with annotations.
        mask_faults: What is wrong with masks, which matters only if they are used.
    """

    path: str
    has_annotations: bool = True
    image_ids: list = field(default_factory=list)
    file_names: list = field(default_factory=list)
    image_sizes: Any = field(default_factory=list)
    category_ids: list = field(default_factory=list)
    category_names: list = field(default_factory=list)
    ids: list = field(default_factory=list)
    images: Any = field(default_factory=lambda: array('i'))
    categories: Any = field(default_factory=lambda: array('i'))
    boxes: Any = field(default_factory=lambda: array('d'))
    areas: Any = field(default_factory=lambda: array('d'))
    crowds: Any = field(default_factory=lambda: array('b'))
    ignored: Any = field(default_factory=lambda: array('b'))
    masks: Any = field(default_factory=lambda: array('b'))
    image_faults: Faults = field(default_factory=Faults)
    category_faults: Faults = field(default_factory=Faults)
    faults: Faults = field(default_factory=Faults)
    mask_faults: Faults = field(default_factory=Faults)

    @property
    def where(self) -> str:
        """Prefix of messages about the file."""
        return f'annotation file {os.path.abspath(self.path)}'

    def in_classes(self, classes: Sequence[str]) -> np.ndarray:
        """Returns whether the category of each annotation is one of the classes, bool."""
        named = np.array([*(name in classes for name in self.category_names), False], bool)
        return named[self.categories]


def read_coco(path: str, *, is_panoptic: bool, progress: Progress) -> CocoFile:
    """Reads an annotation file.

    Args:
        path: The file.
        is_panoptic: Whether its annotations have ``segments_info``.
        progress: Called every now and then.

    Returns:
        Its content.

    Raises:
        NotCocoError: It is not JSON, or does not have COCO's layout.
    """
    lists = _read_lists(path)
    coco = CocoFile(path, has_annotations='annotations' in lists)
    _read_images(coco, lists['images'])
    _read_categories(coco, lists['categories'], is_panoptic=is_panoptic)
    _read_annotations(coco, lists.get('annotations', ()), is_panoptic, progress)
    return coco


def _read_lists(path: str) -> dict[str, Sequence]:
    """Reads the lists of images, categories and annotations, with entries for `_decode`.

    Entries read with msgspec are still JSON: as Python objects, 860,000 polygons take gigabytes.
    """
    content = Path(path).read_bytes()
    for magic, reason in _MAGIC.items():
        if content.startswith(magic):
            raise NotCocoError(f'is not JSON: {reason}')
    try:
        lists = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        lists = {
            name: msgspec.json.decode(value, type=list[msgspec.Raw])
            for name, value in lists.items()
            if name in ('images', 'categories', 'annotations')
        }
    except msgspec.DecodeError:
        # Not JSON, or with NaN, which Python's json and thus pycocotools accept.
        try:
            lists = json.loads(content.decode('utf-8'))
        except ValueError as error:
            raise NotCocoError(f'is not JSON: {error}') from error
        except RecursionError as error:
            raise NotCocoError('is not COCO: it is nested too deeply') from error
        if not isinstance(lists, dict):
            kind = type(lists).__name__
            raise NotCocoError(f'is not COCO: it holds a {kind}, not an object') from None
    for name in ('images', 'categories', 'annotations'):
        if name in lists and not isinstance(lists[name], list):
            raise NotCocoError(f'is not COCO: it has no list {name!r}')
    missing = [name for name in ('images', 'annotations', 'categories') if name not in lists]
    if missing and missing != ['annotations']:  # test sets with secret annotations have none
        raise NotCocoError(f'is not COCO: it has no list {missing[0]!r}')
    return lists


_DECODER = msgspec.json.Decoder()


def _decode(entries: Sequence, name: str) -> Iterator[dict]:
    for entry in entries:
        if type(entry) is msgspec.Raw:
            try:
                entry = _DECODER.decode(entry)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise NotCocoError(f'is not JSON: an entry of {name!r}: {error}') from error
        if type(entry) is not dict:
            raise NotCocoError(f'is not COCO: an entry of {name!r} is {entry!r:.80}, not an object')
        yield entry


def _missing_kind(name: str, missing: Sequence[str]) -> str:
    return f'is not COCO: an entry of {name!r} has no {", ".join(missing)}'


def _read_images(coco: CocoFile, entries: Sequence) -> None:
    faults, seen = coco.image_faults, set()
    for number, image in enumerate(_decode(entries, 'images')):
        identity, name = image.get('id'), image.get('file_name')
        if name is None and isinstance(image.get('coco_url'), str):
            # LVIS gives folder and file name in the URL.
            name = image['coco_url'].replace('http://images.cocodataset.org/', '')
        size = image.get('width'), image.get('height')
        example = f'number {number}' if identity is None else f'id {identity!r:.40}'
        if isinstance(name, str):
            example += f', {name}'
        wanted = {'id': identity, 'file_name': name, 'height': size[1], 'width': size[0]}
        missing = [key for key, value in wanted.items() if value is None]
        if missing:
            faults.add(_missing_kind('images', missing), example)
        if name is not None and not isinstance(name, str):
            faults.add(f'has a file_name that is not text: {name!r:.40}', example)
        if not {type(side) for side in size} <= {*_NUMBERS, type(None)}:
            faults.add('has images whose width or height is not a number', f'{example}, {size}')
        elif not missing and not min(size) > 0:
            faults.add('has images whose width or height is not positive', f'{example}, {size}')
        coco.image_ids.append(_check_identity(identity, seen, faults, 'images', example))
        coco.file_names.append(name if isinstance(name, str) else None)
        usable = {type(side) for side in size} <= _NUMBERS
        coco.image_sizes.append(size if usable else (0, 0))
    coco.image_sizes = np.array(coco.image_sizes, float).reshape(-1, 2)


def _check_identity(value: Any, seen: set, faults: Faults, name: str, example: str) -> Any:
    """Returns an id, None if it is missing or wrong, and adds it to those seen."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if value is not None and type(value) not in (int, str):
        faults.add(f'has {name} whose id is neither a whole number nor text', example)
        return None
    if value is not None and value in seen:
        faults.add(f'has several {name} with the same id', example)
    seen.add(value)
    return value


def _read_categories(coco: CocoFile, entries: Sequence, *, is_panoptic: bool) -> None:
    faults, seen = coco.category_faults, set()
    for number, category in enumerate(_decode(entries, 'categories')):
        identity, name = category.get('id'), category.get('name')
        example = f'number {number}' if identity is None else f'id {identity!r:.40}'
        keys = ('id', 'name', 'isthing') if is_panoptic else ('id', 'name')
        missing = [key for key in keys if category.get(key) is None]
        if missing:
            faults.add(_missing_kind('categories', missing), example)
        elif not isinstance(name, str):
            faults.add(f'has a category whose name is not text: {name!r:.40}', example)
        coco.category_ids.append(_check_identity(identity, seen, faults, 'categories', example))
        coco.category_names.append(str(name))


def _read_annotations(
    coco: CocoFile, entries: Sequence, is_panoptic: bool, progress: Progress
) -> None:
    images = {identity: index for index, identity in enumerate(coco.image_ids)}
    categories = {identity: index for index, identity in enumerate(coco.category_ids)}
    seen = set()
    what = f'annotations of {os.path.basename(coco.path)}'
    for number, entry in enumerate(_decode(entries, 'annotations')):
        if number % _STEP == 0:
            progress(what, number, len(entries))
        if is_panoptic:
            _read_segments(coco, entry, number, images, categories)
            continue
        identity = entry.get('id')
        try:
            if identity in seen:
                coco.faults.add('has several annotations with the same id', f'id {identity!r}')
            seen.add(identity)
        except TypeError:
            kind = 'has annotations whose id is neither a whole number nor text'
            coco.faults.add(kind, f'number {number}')
            identity = None
        _read_annotation(coco, entry, identity, number, images, categories)
    progress(what, len(entries), len(entries))
    for name in ('images', 'categories', 'areas', 'masks'):
        setattr(coco, name, np.asarray(getattr(coco, name)))
    coco.boxes = np.asarray(coco.boxes).reshape(-1, 4)
    coco.crowds, coco.ignored = (np.asarray(each, bool) for each in (coco.crowds, coco.ignored))


def _read_segments(
    coco: CocoFile, entry: dict, number: int, images: dict, categories: dict
) -> None:
    missing = [key for key in ('image_id', 'file_name', 'segments_info') if key not in entry]
    if missing:
        coco.faults.add(_missing_kind('annotations', missing), f'number {number}')
    segments = entry.get('segments_info') or ()
    if not isinstance(segments, list) or not all(isinstance(each, dict) for each in segments):
        coco.faults.add('has segments_info that is not a list of objects', f'number {number}')
        return
    seen = set()
    for segment in segments:
        segment['image_id'] = entry.get('image_id')
        identity = segment.get('id')
        if identity in seen:
            coco.faults.add('has several segments of an image with the same id', f'id {identity!r}')
        seen.add(identity)
        _read_annotation(coco, segment, identity, number, images, categories)


def _read_annotation(
    coco: CocoFile, entry: dict, identity: Any, number: int, images: dict, categories: dict
) -> None:
    faults = coco.faults
    example = f'id {identity!r:.40}' if identity is not None else f'number {number}'
    missing = [key for key in ('id', 'image_id', 'category_id', 'bbox') if entry.get(key) is None]
    if missing:
        faults.add(_missing_kind('annotations', missing), example)
    try:
        image = images.get(entry.get('image_id'), -1)
        category = categories.get(entry.get('category_id'), -1)
    except TypeError:
        image = category = -1
        faults.add('has annotations whose image_id or category_id is not an id', example)
    box = entry.get('bbox')
    if type(box) is not list or len(box) != 4 or not set(map(type, box)) <= _NUMBERS:
        if box is not None:
            faults.add('has annotations whose bbox is not four numbers', f'{example}, {box!r:.60}')
        box = (math.nan,) * 4
    elif not math.isfinite(sum(box)):
        faults.add('has annotations whose bbox is not finite', f'{example}, {box!r:.60}')
    area = entry.get('area')
    if type(area) not in _NUMBERS:
        if area is not None:
            faults.add('has annotations whose area is not a number', f'{example}, {area!r:.40}')
        area = math.nan
    crowd = entry.get('iscrowd')
    if crowd not in (None, 0, 1):
        faults.add('has annotations whose iscrowd is neither 0 nor 1', f'{example}, {crowd!r:.40}')
    coco.ids.append(identity)
    coco.images.append(image)
    coco.categories.append(category)
    coco.boxes.extend(box)
    coco.areas.append(area)
    coco.crowds.append(bool(crowd))
    coco.ignored.append(bool(entry.get('ignore')))
    mask = entry.get('segmentation')
    coco.masks.append(_read_mask(coco, mask, image, example) if mask else NO_MASK)


def _read_mask(coco: CocoFile, mask: Any, image: int, example: str) -> int:
    if type(mask) is list:
        short = 0
        for polygon in mask:
            is_list = type(polygon) is list and set(map(type, polygon)) <= _NUMBERS
            if not is_list or not math.isfinite(sum(polygon)):
                coco.mask_faults.add(
                    'has annotations whose segmentation is not a list of polygons, each a list of '
                    'numbers x1, y1, x2, y2, ...',
                    f'{example}, {mask!r:.60}',
                )
                break
            short += len(polygon) < 6 or len(polygon) % 2
        if not short:
            return MASK
        if type(mask[0]) is list and len(mask[0]) < 5:
            return TINY
        return SHORT if short == len(mask) else PARTLY_SHORT
    if type(mask) is not dict or type(mask.get('counts')) not in (str, list):
        kind = 'has annotations whose segmentation is neither polygons nor RLE (counts and size)'
        coco.mask_faults.add(kind, f'{example}, {mask!r:.60}')
        return MASK
    if image < 0:
        return MASK
    size, (width, height) = mask.get('size'), coco.image_sizes[image]
    if size != [height, width]:
        coco.mask_faults.add(
            'has masks whose size, [height, width], is not that of their image',
            f'{example}, {size} in an image of {[int(height), int(width)]}',
        )
    elif type(mask['counts']) is list:
        counts = mask['counts']
        if not set(map(type, counts)) <= {int} or sum(counts) != height * width:
            coco.mask_faults.add(
                'has masks whose counts do not add up to the pixels of their image', example
            )
    return MASK
