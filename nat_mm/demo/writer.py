"""Writes the generated scenes as a COCO dataset and an ADE20K-style dataset."""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from rich.progress import track

from nat_mm.demo.kinds import KINDS
from nat_mm.demo.options import DatasetOptions
from nat_mm.demo.scenes import SceneObject, make_scene
from nat_mm.files import whole_folder

SPLITS = ('train', 'val')

_OPTIONS_FILE = 'options.json'
_FOLDERS = ('images', 'annotations', 'labels')
_OWN_FILE = re.compile(
    r'images/(train|val)/\d{5,}\.jpg'
    r'|annotations/instances_(train|val)\.json'
    r'|labels/(train|val)/\d{5,}\.png'
    rf'|{re.escape(_OPTIONS_FILE)}'
)
_OWN_FOLDER = re.compile(r'annotations|(images|labels)(/train|/val)?')
# Increase this whenever equal options draw something else, so that older data is not reused.
_DRAWING_VERSION = 1


def write_dataset(
    folder: str | Path,
    options: DatasetOptions | None = None,
    *,
    overwrite: bool = False,
    progress: bool = True,
) -> bool:
    """Writes the dataset, unless the folder already contains it.

    The folder gets, for both splits (``train``, ``val``)::

        images/SPLIT/00000.jpg                images
        annotations/instances_SPLIT.json      COCO instance annotations, masks as RLE
        labels/SPLIT/00000.png                ADE20K-style label maps, uint8 [size, size]:
                                              0 unlabeled, 1 background, 2 + index into KINDS
        options.json                          options of the dataset

    As for ADE20K, set ``reduce_zero_label=True``: unlabeled pixels are then ignored, and class 0 is
    the background. The files are first written to a temporary folder, so an error leaves nothing
    half-written behind.

    Args:
        folder: Where to write; created with its parents.
        options: None means the defaults of :class:`DatasetOptions`.
        overwrite: Whether to replace a dataset that this function wrote with other options.
        progress: Whether to show a progress bar.

    Returns:
        True if the dataset was written, False if it already existed.

    Raises:
        FileExistsError: If the folder is a file, holds no generated dataset but is not empty, or
            holds one with other options and either overwrite is False or there is anything else in
            it, at any depth.
        FileWriteError: If it cannot be written.
    """
    folder = Path(folder).resolve()
    options = options or DatasetOptions()
    description = {'drawing_version': _DRAWING_VERSION, **_as_json(options)}
    if folder.exists():
        earlier = _read_description(folder)
        if earlier == description:
            return False
        if earlier is not None and not overwrite:
            changed = [key for key in description if earlier.get(key) != description[key]]
            raise FileExistsError(
                f'{folder} holds a dataset made with another {", ".join(changed)}: '
                'choose another folder, or overwrite it'
            )
        foreign = _find_foreign(folder)
        if foreign:
            raise FileExistsError(
                f'{folder} also holds {foreign}, which is no part of the generated dataset: '
                'move it away, or choose another folder'
            )
    with whole_folder(folder) as unfinished:
        for split in SPLITS:
            _write_split(unfinished, split, options, progress)
        (unfinished / _OPTIONS_FILE).write_text(json.dumps(description, indent=2) + '\n')
        _remove_dataset(folder)
    return True


def _remove_dataset(folder: Path) -> None:
    # An interruption leaves a dataset without its options, which is never reused: they are removed
    # first and, by their name, moved there last.
    (folder / _OPTIONS_FILE).unlink(missing_ok=True)
    for name in _FOLDERS:
        if (folder / name).exists():
            shutil.rmtree(folder / name)


def _as_json(options: DatasetOptions) -> dict:
    return json.loads(json.dumps(asdict(options)))


def _read_description(folder: Path) -> dict | None:
    """Reads the options of a generated dataset; None for an empty folder."""
    if not folder.is_dir():
        raise FileExistsError(f'{folder} is a file, not a folder')
    if not any(folder.iterdir()):
        return None
    try:
        description = json.loads((folder / _OPTIONS_FILE).read_text())
        description['drawing_version']
    except (OSError, ValueError, KeyError, TypeError):
        raise FileExistsError(
            f'{folder} is not empty and holds no dataset made by nat_mm.demo: choose another folder'
        ) from None
    return description


def _find_foreign(folder: Path) -> str | None:
    """Finds something in a folder that `write_dataset` does not write; None if there is nothing."""
    for path in sorted(folder.rglob('*')):
        name = path.relative_to(folder).as_posix()
        own = _OWN_FOLDER if path.is_dir() else _OWN_FILE
        if path.is_symlink() or not own.fullmatch(name):
            return name
    return None


def _write_split(folder: Path, split: str, options: DatasetOptions, progress: bool) -> None:
    count = {'train': options.train_scenes, 'val': options.val_scenes}[split]
    image_folder, labels = folder / 'images' / split, folder / 'labels' / split
    for path in (image_folder, labels, folder / 'annotations'):
        path.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index in track(range(count), f'Drawing {split} scenes', disable=not progress):
        scene = make_scene(split, index, options)
        name = f'{index:05d}'
        _write_image(image_folder / f'{name}.jpg', scene.image, [cv2.IMWRITE_JPEG_QUALITY, 93])
        _write_image(labels / f'{name}.png', scene.labels, [])
        images.append(
            {
                'id': index,
                'file_name': f'{name}.jpg',
                'width': options.image_size,
                'height': options.image_size,
            }
        )
        for instance in scene.instances:
            annotations.append(_annotation(instance, len(annotations) + 1, index))
    content = {
        'info': {'description': f'nat_mm demo scenes, {split}'},
        'images': images,
        'annotations': annotations,
        'categories': [{'id': i, 'name': name} for i, name in enumerate(KINDS, start=1)],
    }
    (folder / 'annotations' / f'instances_{split}.json').write_text(json.dumps(content))


def _write_image(path: Path, image: np.ndarray, parameters: list[int]) -> None:
    # Not imwrite, which does not say why it fails.
    _, content = cv2.imencode(path.suffix, image, parameters)
    path.write_bytes(content)


def _annotation(instance: SceneObject, annotation_id: int, image_id: int) -> dict:
    # RLE, because COCO polygons cannot have holes, and most masks here have some.
    run_lengths = coco_mask.encode(np.asfortranarray(instance.mask.astype(np.uint8)))
    return {
        'id': annotation_id,
        'image_id': image_id,
        'category_id': instance.kind + 1,
        'segmentation': {
            'size': list(run_lengths['size']),
            'counts': run_lengths['counts'].decode('ascii'),
        },
        'area': int(coco_mask.area(run_lengths)),
        'bbox': coco_mask.toBbox(run_lengths).tolist(),
        'iscrowd': 0,
    }
