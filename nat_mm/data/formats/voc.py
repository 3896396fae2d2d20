"""Reads Pascal VOC's format, one XML file per image, which LabelImg and CVAT also write."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np

from nat_mm.compat.postscript import open_image
from nat_mm.data.formats.annotated import (
    AnnotatedImage,
    AnnotatedObject,
    Annotations,
    clip_points,
    enclose,
    encode_mask,
    find_files,
    find_image,
    read_size,
    read_text,
    split_of,
)
from nat_mm.errors import UserError

_CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def read_voc(source: Path) -> Annotations:
    """Reads a folder in Pascal VOC's format.

    Objects marked as difficult are ignored in training and testing, as in VOC's own evaluation. A
    ``SegmentationObject/NAME.png`` provides the masks of an image's objects. If
    ``ImageSets/Main`` has both ``train.txt`` and ``val.txt``, these list the images to use.
    Otherwise, folders with names starting with ``train`` and ``val`` are the splits, and those
    starting with ``test`` are left out.

    Args:
        source: The folder, with ``Annotations`` and ``JPEGImages``; or any folder in which the
            XML files are next to the images.

    Returns:
        The annotations; classes are in alphabetical order.

    Raises:
        UserError: There is nothing to read, or something is wrong with a file.
    """
    folder = source / 'Annotations'
    files = find_files(folder if folder.is_dir() else source, ('.xml',))
    if not files:
        raise UserError(f'{source} has no annotations: there is no .xml file in it')
    splits = _read_splits(source, {file.stem for file in files})
    annotations = Annotations([], [])
    for file in files:
        split = splits.get(file.stem) if splits else split_of(file, source)
        if splits and split is None:
            annotations.left_out['images in neither train.txt nor val.txt'] += 1
        elif split == 'test':
            annotations.left_out['images of the test split'] += 1
        else:
            annotations.images.append(_read_image(file, source, split))
    found = {each.name for image in annotations.images for each in image.objects}
    annotations.classes.extend(sorted(found))
    return annotations


def _read_splits(source: Path, names: set[str]) -> dict[str, str]:
    """Reads the split of each image from two lists in ``ImageSets/Main``; empty without both."""
    lists = {split: source / 'ImageSets' / 'Main' / f'{split}.txt' for split in ('train', 'val')}
    splits: dict[str, str] = {}
    if not all(path.is_file() for path in lists.values()):
        return splits
    for split, path in lists.items():
        for line in filter(str.strip, read_text(path).splitlines()):
            name = line.split()[0]
            if name not in names:
                raise UserError(f'{path} lists {name}, but there is no {name}.xml')
            if splits.setdefault(name, split) != split:
                raise UserError(f'{path} lists {name}, which is in {lists["train"].name}, too')
    return splits


def _read_image(file: Path, source: Path, split: str | None) -> AnnotatedImage:
    try:
        root = ElementTree.fromstring(file.read_bytes())
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f'{file} is not XML: {error}') from error
    folders = (source / 'JPEGImages', source / 'images', file.parent)
    path = find_image(root.findtext('filename', '').strip(), folders, annotations=file)
    size = read_size(path)
    _check_size(root, size, file, path)
    elements = root.findall('object')
    masks = _read_masks(source / 'SegmentationObject' / f'{file.stem}.png', size, len(elements))
    objects = [
        _read_object(element, size, f'{file}, object {number}', mask)
        for number, (element, mask) in enumerate(zip(elements, masks, strict=True), start=1)
    ]
    return AnnotatedImage(path, *size, tuple(objects), split)


def _check_size(root: ElementTree.Element, size: tuple[int, int], file: Path, path: Path) -> None:
    written = tuple(root.findtext(f'size/{side}', '0').strip() for side in ('width', 'height'))
    # Some tools omit the size or write zeros.
    if '0' not in written and written != tuple(map(str, size)):
        raise UserError(
            f'{file} is for an image of {written[0]} x {written[1]} pixels, but {path} has '
            f'{size[0]} x {size[1]}'
        )


def _read_object(
    element: ElementTree.Element, size: tuple[int, int], place: str, mask: dict[str, Any] | None
) -> AnnotatedObject:
    name = element.findtext('name', '').strip()
    if not name:
        raise UserError(f'{place} has no name')
    corners = []
    for key in _CORNERS:
        text = element.findtext(f'bndbox/{key}', '').strip()
        try:
            corners.append(float(text))
        except ValueError:
            raise UserError(
                f'{place} ({name}): bndbox/{key} must be a number, got {text!r}'
            ) from None
    left, top, right, bottom = corners
    if right < left or bottom < top:
        raise UserError(
            f'{place} ({name}): xmin, ymin, xmax, ymax are {left:g}, {top:g}, {right:g}, '
            f'{bottom:g}, but the minimum must come first'
        )
    # VOC counts pixels from 1, and the last one belongs to the box.
    points = clip_points((left - 1, top - 1, right, bottom), size, place=f'{place} ({name})')
    box = enclose([points], place=f'{place} ({name})')
    difficult = element.findtext('difficult', '0').strip()
    return AnnotatedObject(name, box, mask=mask, is_ignored=difficult == '1')


def _read_masks(path: Path, size: tuple[int, int], count: int) -> list[dict[str, Any] | None]:
    """Reads the mask of each object; they are all None without a mask image."""
    if not path.is_file():
        return [None] * count
    if read_size(path) != size:
        raise UserError(f'{path} must have the size of its image, {size[0]} x {size[1]} pixels')
    try:
        with open_image(path) as image:
            mode, numbers = image.mode, np.array(image)
    except (OSError, SyntaxError) as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    if mode not in ('P', 'L'):
        raise UserError(f'{path} must have one channel, the number of the object, got {mode}')
    for number in range(1, count + 1):
        if number not in numbers:
            raise UserError(f'{path} has no pixel of object {number} of {count}')
    return [encode_mask(numbers == number) for number in range(1, count + 1)]
