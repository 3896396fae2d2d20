"""Counts what models take each class for."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

SCORE_THRESHOLD = 0.3
"""Of the objects that count."""
IOU_THRESHOLD = 0.5
"""At least so much of a found and a true box, together, is in both."""

_Truth = tuple[NDArray, NDArray, NDArray]


class ConfusionMatrix(BaseMetric):
    """Counts how often each class was taken for each, in ``matrix`` once the run has ended.

    It is a metric without a result, so that runs in several processes collect it as they do others.

    Attributes:
        names: Of rows, what is true, and columns, what was predicted.
        class_count: How many of them are classes of the dataset, the first ones.
        matrix: [classes, classes], int64; None before the end and in other processes than the main
            one.

    Args:
        names: Names of the classes.
    """

    default_prefix = 'confusion'  # without one mmengine warns

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = list(names)
        self.class_count = len(self.names)
        self.matrix: NDArray[np.int64] | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Counts one batch."""
        for sample in data_samples:
            truth, predicted = self._pairs(sample)
            places, counts = np.unique(truth * len(self.names) + predicted, return_counts=True)
            # For each image, as mmengine drops those that fill up the last batch.
            self.results.append((places, counts))

    def compute_metrics(self, results: list) -> dict:
        """Adds up the images."""
        matrix = np.zeros(len(self.names) ** 2, np.int64)
        for places, counts in results:
            matrix[places] += counts
        self.matrix = matrix.reshape(len(self.names), -1)
        return {}

    def _pairs(self, sample: dict) -> tuple[NDArray, NDArray]:
        """What is true and what was predicted, by number in ``names``."""
        raise NotImplementedError


class PixelConfusion(ConfusionMatrix):
    """The classes of pixels, by mmseg's segmentors; those without a class do not count."""

    def _pairs(self, sample: dict) -> tuple[NDArray, NDArray]:
        if 'gt_sem_seg' not in sample:
            return _no_pairs()
        truth, predicted = (
            sample[part]['data'].flatten().cpu().numpy().astype(np.int64)
            for part in ('gt_sem_seg', 'pred_sem_seg')
        )
        known = (truth >= 0) & (truth < len(self.names)) & (predicted < len(self.names))
        return truth[known], predicted[known]


class ImageConfusion(ConfusionMatrix):
    """The classes of images, by mmpretrain's classifiers; images of several ones do not count."""

    def _pairs(self, sample: dict) -> tuple[NDArray, NDArray]:
        truth, predicted = sample.get('gt_label'), sample.get('pred_label')
        if truth is None or predicted is None or truth.numel() != 1 or predicted.numel() != 1:
            return _no_pairs()
        return truth.cpu().numpy().reshape(1), predicted.cpu().numpy().reshape(1)


class ObjectConfusion(ConfusionMatrix):
    """The classes of objects, by mmdet's detectors.

    Found objects from `SCORE_THRESHOLD` on, the highest score first, each take the true object
    with the highest intersection over union of boxes that none has taken yet, of whatever class, if
    that is at least `IOU_THRESHOLD`. The last row and column, background, are for found objects
    where there is none, and for true ones that were missed. Found ones inside of what the dataset
    ignores, such as crowds, do not count.

    Args:
        classes: Names of the classes.
        truth: Annotations by ``img_id``: mmdet's ``instances``, in pixels of the file.
    """

    def __init__(self, classes: Sequence[str], truth: Mapping[Any, Iterable[dict]]) -> None:
        super().__init__([*classes, 'background'])
        self.class_count = len(classes)
        self._truth = {image: _read_instances(instances) for image, instances in truth.items()}

    def _pairs(self, sample: dict) -> tuple[NDArray, NDArray]:
        if 'pred_instances' not in sample or sample.get('img_id') not in self._truth:
            return _no_pairs()
        found = sample['pred_instances']
        scores = found['scores'].float().cpu().numpy()
        order = np.argsort(-scores, kind='stable')
        order = order[scores[order] >= SCORE_THRESHOLD]
        boxes = found['bboxes'].float().cpu().numpy()[order]
        labels = found['labels'].cpu().numpy()[order]
        return match_objects(
            boxes, labels, self._truth[sample['img_id']], nothing=len(self.names) - 1
        )


def match_objects(
    boxes: NDArray, labels: NDArray, truth: _Truth, *, nothing: int
) -> tuple[NDArray, NDArray]:
    """Finds out what the objects of an image were taken for; see `ObjectConfusion`.

    Args:
        boxes: [n, 4]: x1, y1, x2, y2 of what was found, the highest score first.
        labels: [n]: its classes.
        truth: The same of what is there: [m, 4] and [m]; and [m], bool: whether it is ignored.
        nothing: Number of the background.

    Returns:
        What is true and what was predicted, one entry for each pair and each object without one.
    """
    true_boxes, true_labels, ignored = truth
    shared = _intersections(boxes, true_boxes)
    areas, true_areas = _areas(boxes), _areas(true_boxes)
    overlaps = shared / np.maximum(areas[:, None] + true_areas - shared, 1e-9)
    free = ~ignored
    pairs = []
    for number, label in enumerate(labels.tolist()):
        candidates = np.where(free, overlaps[number], 0)
        if len(candidates) and candidates.max() >= IOU_THRESHOLD:
            taken = int(candidates.argmax())
            free[taken] = False
            pairs.append((int(true_labels[taken]), label))
        elif not (shared[number][ignored] >= 0.5 * areas[number]).any():
            pairs.append((nothing, label))
    pairs += [(int(label), nothing) for label in true_labels[free]]
    truth_of_pairs, predicted = np.array(pairs, np.int64).reshape(-1, 2).T
    return truth_of_pairs, predicted


def _no_pairs() -> tuple[NDArray, NDArray]:
    return np.zeros(0, np.int64), np.zeros(0, np.int64)


def _read_instances(instances: Iterable[dict]) -> _Truth:
    kept = list(instances)
    boxes = np.array([each['bbox'] for each in kept], np.float64).reshape(-1, 4)
    labels = np.array([each['bbox_label'] for each in kept], np.int64)
    ignored = np.array([bool(each.get('ignore_flag')) for each in kept], bool)
    return boxes, labels, ignored


def _areas(boxes: NDArray) -> NDArray:
    return (boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(axis=1)


def _intersections(boxes: NDArray, others: NDArray) -> NDArray:
    start = np.maximum(boxes[:, None, :2], others[None, :, :2])
    end = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return (end - start).clip(min=0).prod(axis=2)
