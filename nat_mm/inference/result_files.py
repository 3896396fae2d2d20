"""Writes results as data files."""

from pathlib import Path

import numpy as np

from nat_mm.files import encode_image, write_bytes, write_json
from nat_mm.inference.coco_results import CocoResults
from nat_mm.inference.model import Model
from nat_mm.inference.results import DetectionResult, Result, SegmentationResult

RESULT_SUFFIXES = {
    'detection': ('.json', '.png'),
    'segmentation': ('.png',),
    'classification': ('.json',),
}
"""Suffixes of the files that a result can have, by task; the first one always exists."""


class ResultFiles:
    """Writes the data of results to a folder.

    ``results/NAME`` with a suffix from `RESULT_SUFFIXES` contains the result of one image: JSON
    from `Result.describe`; for a segmentor, a label image, with the names of its numbers in
    ``classes.json``; for a panoptic model, also a PNG in COCO's format for panoptic segments.
    ``coco`` contains the objects of all images of a detector; see `CocoResults`.

    Label images are numbered like the ground truth: class 0 is 1 if the config's dataset has
    ``reduce_zero_label``, as for ADE20K, and 0 otherwise.

    Args:
        model: The model whose results are written.
        folder: Folder for the files.
    """

    def __init__(self, model: Model, folder: Path) -> None:
        self.folder = folder
        self._model = model
        self._has_classes = False
        self._coco = CocoResults(folder / 'coco', model.classes)

    def paths(self, name: str) -> list[Path]:
        """Returns the paths for the data of an image, by its `Frame.name`."""
        suffixes = RESULT_SUFFIXES[self._model.task]
        return [self.folder / 'results' / f'{name}{suffix}' for suffix in suffixes]

    def write(self, result: Result) -> None:
        """Writes the result of an image."""
        paths = self.paths(result.frame.name)
        if isinstance(result, SegmentationResult):
            classes, first = self._model.classes, self._model.first_label
            write_labels(paths[0], result.label_map, classes=len(classes), first=first)
            if not self._has_classes:
                # By number; None stands for a number without a class.
                write_json(self.folder / 'classes.json', [*[None] * first, *classes])
                self._has_classes = True
            return
        if isinstance(result, DetectionResult):
            if result.segments is not None:
                write_bytes(paths[1], encode_segments(result.segments))
            self._coco.add(result)
        write_json(paths[0], result.describe())

    def close(self) -> None:
        """Completes the files with the data of all images, if there are any."""
        self._coco.close()


def write_labels(path: Path, labels: np.ndarray, *, classes: int, first: int) -> None:
    """Writes a label image.

    Args:
        path: File to write, ``.png``.
        labels: [height, width], class indices.
        classes: Number of classes.
        first: Number of the first class in the file.
    """
    write_bytes(path, encode_labels(labels, classes=classes, first=first))


def encode_labels(labels: np.ndarray, *, classes: int, first: int) -> bytes:
    """Encodes a label image as PNG; see `write_labels`."""
    dtype = np.uint8 if classes + first <= 256 else np.uint16
    # Adding in 64 bits would take too much memory for large images.
    return encode_image('.png', np.add(labels.astype(dtype), first, dtype=dtype))


def encode_segments(segments: np.ndarray) -> bytes:
    """Encodes panoptic segments as PNG in COCO's format.

    Args:
        segments: [height, width], int: segment numbers.
    """
    from panopticapi.utils import id2rgb

    return encode_image('.png', id2rgb(segments)[..., ::-1])
