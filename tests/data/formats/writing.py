"""Writes tiny datasets in each format."""

import json
from pathlib import Path

import cv2
import numpy as np
from pycocotools.coco import COCO

WIDTH, HEIGHT = 60, 40


def write_image(path: Path, width: int = WIDTH, height: int = HEIGHT) -> None:
    """Writes a gray image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width, 3), 100, np.uint8))


def write_text(path: Path, text: str) -> None:
    """Writes a text file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_labelme(path: Path, *shapes: dict, **content: object) -> None:
    """Writes a labelme JSON file and, unless ``imagePath`` is given, an image next to it."""
    name = f'{path.stem}.jpg'
    if 'imagePath' not in content:
        write_image(path.parent / name)
    size = {'imageWidth': WIDTH, 'imageHeight': HEIGHT}
    write_text(path, json.dumps({'shapes': shapes, 'imagePath': name, **size, **content}))


def polygon(label: str, *points: tuple[float, float], **more: object) -> dict:
    """Makes a labelme polygon."""
    return {'label': label, 'points': points, 'shape_type': 'polygon', **more}


def objects(coco: COCO) -> dict[str, list[dict]]:
    """Returns the annotations by class name."""
    found: dict[str, list[dict]] = {}
    for each in coco.anns.values():
        found.setdefault(coco.cats[each['category_id']]['name'], []).append(each)
    return found
