"""Writes objects as COCO's evaluation reads them."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from nat_mm.files import unfinished_path, write_json


class CocoResults:
    """A list of objects as ``pycocotools.coco.COCO.loadRes`` takes it, and the images it is about.

    ``results.json`` has an entry for each object: ``image_id``, ``category_id``, ``bbox`` (x, y,
    width, height in pixels), ``score`` and, where there are masks, ``segmentation`` (run-length
    encoding). ``images.json`` is a COCO file without annotations: ``images`` with ``id``,
    ``file_name``, ``height``, ``width`` and, of videos, ``frame``, from 0; and ``categories``. The
    identifiers of categories are the model's class numbers plus 1. Both files are at their place
    once `close` was called; nothing is written before the first image.

    Format: https://cocodataset.org/#format-results

    Args:
        folder: Where the files go.
        classes: Names of the model's classes.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self.images = []
        self._path = folder / 'results.json'
        self._classes = classes
        self._unfinished = unfinished_path(self._path)
        self._file = None
        self._separator = '['

    def add(self, result: dict) -> None:
        """Adds the objects of an image.

        Args:
            result: The data of the image, as `DetectionPredictor` describes them.
        """
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._unfinished, 'w', encoding='utf-8')  # noqa: SIM115
        number = len(self.images) + 1
        size = {'height': result['height'], 'width': result['width']}
        frame = {'frame': result['frame']} if 'frame' in result else {}
        self.images.append({'id': number, 'file_name': result['image'], **size, **frame})
        for instance in result['instances']:
            left, top, right, bottom = instance['bbox']
            entry = {
                'image_id': number,
                'category_id': instance['label'] + 1,
                'bbox': [left, top, right - left, bottom - top],
                'score': instance['score'],
            }
            if 'mask' in instance:
                entry['segmentation'] = instance['mask']
            self._file.write(f'{self._separator}\n{json.dumps(entry)}')
            self._separator = ','

    def close(self) -> None:
        """Finishes the files and puts them in their place."""
        if self._file is None:
            return
        with self._file as file:
            file.write('[]\n' if self._separator == '[' else '\n]\n')
        self._file = None
        categories = [{'id': label + 1, 'name': name} for label, name in enumerate(self._classes)]
        os.replace(self._unfinished, self._path)
        write_json(
            self._path.with_name('images.json'),
            {'images': self.images, 'annotations': [], 'categories': categories},
        )
