"""Writes annotated images as COCO annotations and label images."""

import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from nat_mm.data.formats.annotated import AnnotatedImage, AnnotatedObject, Annotations
from nat_mm.errors import UserError
from nat_mm.files import whole_folder, write_image, write_json

SPLITS = ('train', 'val')
BACKGROUND = 'background'
IGNORED_LABEL = 255


def write_coco(annotations: Annotations, target: Path, *, label_images: bool = False) -> None:
    """Writes annotated images in COCO's folder layout, all or nothing.

    For ``train`` and ``val``, the folder gets::

        images/PART/NAME.jpg                   hard links to the images, or copies
        annotations/instances_PART.json        COCO annotations
        labels/PART/NAME.png                   with ``label_images``: uint8 [height, width], 0 for
                                               the background, 1 for the first class, ..., 255 for
                                               ignored pixels; later objects cover earlier ones

    Args:
        annotations: What to write; every image has a split.
        target: A folder that does not exist or is empty.
        label_images: Whether to also write label images.

    Raises:
        UserError: The folder is not empty, images have the same name, label images are requested
            for objects without masks, or there are too many classes for label images.
        FileWriteError: The folder cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f'{target} exists and is not an empty folder: choose another one')
    if label_images and len(annotations.classes) >= IGNORED_LABEL:
        raise UserError(f'label images hold 254 classes, not {len(annotations.classes)}')
    with whole_folder(target) as folder:
        for split in SPLITS:
            images = [image for image in annotations.images if image.split == split]
            _write_split(folder, split, images, annotations.classes, label_images)


def _write_split(
    folder: Path, split: str, images: list[AnnotatedImage], classes: list[str], label_images: bool
) -> None:
    (folder / 'images' / split).mkdir(parents=True)
    numbers = {name: number for number, name in enumerate(classes, start=1)}
    listed: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for name, image in _name_files(images).items():
        _link(image.path, folder / 'images' / split / name)
        listed.append(
            dict(id=len(listed) + 1, file_name=name, width=image.width, height=image.height)
        )
        for each in image.objects:
            objects.append(
                dict(
                    id=len(objects) + 1,
                    image_id=len(listed),
                    category_id=numbers[each.name],
                    bbox=list(each.box),
                    iscrowd=int(each.is_ignored),
                    **_segmentation(each, image),
                )
            )
        if label_images:
            path = (folder / 'labels' / split / name).with_suffix('.png')
            write_image(path, _draw_labels(image, numbers))
    content = dict(
        info=dict(description=f'{split}, converted by nat-mm'),
        images=listed,
        annotations=objects,
        categories=[dict(id=number, name=name) for name, number in numbers.items()],
    )
    write_json(folder / 'annotations' / f'instances_{split}.json', content)


def _name_files(images: list[AnnotatedImage]) -> dict[str, AnnotatedImage]:
    """Names a file for each image: its own name, prefixed by its folders if that is not unique."""
    stems = Counter(image.path.stem.lower() for image in images)
    named: dict[str, AnnotatedImage] = {}
    taken: dict[str, Path] = {}
    for image in images:
        is_alone = stems[image.path.stem.lower()] == 1
        name = image.path.name if is_alone else '_'.join(image.path.parts[-3:]).lstrip('/')
        # All label images end with .png, so that stems must be unique.
        other = taken.setdefault(Path(name).stem.lower(), image.path)
        if name in named and other == image.path:
            raise UserError(
                f'{image.path} is the image of two annotation files: remove one of them'
            )
        if other != image.path:
            raise UserError(f'{image.path} and {other} have the same name: rename one of them')
        named[name] = image
    return named


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # on another disk, or one without hard links
        shutil.copyfile(source, target)


def _segmentation(each: AnnotatedObject, image: AnnotatedImage) -> dict[str, Any]:
    """Returns COCO's ``segmentation`` and ``area``; for a box, only the area."""
    if not each.polygons and each.mask is None:
        return dict(area=each.box[2] * each.box[3])
    area = float(coco_mask.area(_encode(each, image)))
    if each.polygons:
        return dict(segmentation=[list(polygon) for polygon in each.polygons], area=area)
    mask = {**each.mask, 'counts': each.mask['counts'].decode('ascii')}
    return dict(segmentation=mask, area=area)


def _encode(each: AnnotatedObject, image: AnnotatedImage) -> dict[str, Any]:
    """Encodes the pixels of an object as RLE."""
    if each.mask is not None:
        return each.mask
    polygons = [list(polygon) for polygon in each.polygons]
    return coco_mask.merge(coco_mask.frPyObjects(polygons, image.height, image.width))


def _draw_labels(image: AnnotatedImage, numbers: dict[str, int]) -> np.ndarray:
    labels = np.zeros((image.height, image.width), np.uint8)
    for each in image.objects:
        if not each.polygons and each.mask is None:
            raise UserError(
                f'{image.path}: an object of class {each.name} has only a box, so there can be no '
                f'label images'
            )
        value = IGNORED_LABEL if each.is_ignored else numbers[each.name]
        labels[coco_mask.decode(_encode(each, image)).astype(bool)] = value
    for each in image.unlabeled:
        labels[coco_mask.decode(_encode(each, image)).astype(bool)] = IGNORED_LABEL
    return labels
