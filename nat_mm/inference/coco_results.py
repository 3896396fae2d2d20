"""Writes objects in the format of COCO's evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from nat_mm.files import unfinished_path, whole_file, write_errors
from nat_mm.inference.results import DetectionResult


class CocoResults:
    """Writes lists of objects, for ``pycocotools.coco.COCO.loadRes``, and of their images.

    ``results.json`` has an entry for each object; see `DetectionResult.to_coco`. ``images.json``
    is a COCO file without annotations: ``images`` with ``id``, ``file_name``, ``height``,
    ``width`` and, for videos, ``frame``, counted from 0; and ``categories``. Both files exist under
    their final names after `close`; nothing is written before the first image.

    Format: https://cocodataset.org/#format-results

    Args:
        folder: Folder for the files.
        classes: Names of the model's classes.
    """

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self.images: list[dict[str, Any]] = []
        self._path = folder / 'results.json'
        self._classes = classes
        self._unfinished = unfinished_path(self._path)
        self._file: TextIO | None = None
        self._separator = '['

    def add(self, result: DetectionResult) -> None:
        """Adds the objects of an image.

        Raises:
            FileWriteError: If they cannot be written.
        """
        if self._file is None:
            with write_errors(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = open(self._unfinished, 'w', encoding='utf-8')  # noqa: SIM115
        number = len(self.images) + 1
        place = result.frame.describe()
        height, width = result.image.shape[:2]
        image = {'id': number, 'file_name': place.pop('image'), 'height': height, 'width': width}
        self.images.append({**image, **place})
        for entry in result.to_coco(number):
            with write_errors(self._path):
                self._file.write(f'{self._separator}\n{json.dumps(entry)}')
            self._separator = ','

    def close(self) -> None:
        """Completes both files and moves them to their final names.

        Raises:
            FileWriteError: If one cannot be completed; then neither is moved.
        """
        if self._file is None:
            return
        categories = [{'id': label + 1, 'name': name} for label, name in enumerate(self._classes)]
        content = {'images': self.images, 'annotations': [], 'categories': categories}
        file, self._file = self._file, None
        with (
            whole_file(self._path, unfinished=self._unfinished),
            whole_file(self._path.with_name('images.json')) as images,
        ):
            with write_errors(self._path), file:
                file.write('[]\n' if self._separator == '[' else '\n]\n')
            images.write_text(json.dumps(content), encoding='utf-8')
