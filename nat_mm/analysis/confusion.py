"""Counts which classes models confuse."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from numpy.typing import NDArray

SCORE_THRESHOLD = 0.3
"""Lowest score of the predicted objects that count."""
IOU_THRESHOLD = 0.5
"""Lowest intersection over union at which a predicted and a true box match."""

_Truth = tuple[NDArray, NDArray, NDArray]


class ConfusionMatrix(BaseMetric):
    """Counts how often each class was predicted as each class.

    Classes without a name, such as those that only the model knows, do not count. This is a metric
    without a result, so that distributed runs collect it like any other.

    Attributes:
        names: Names of the rows (true classes) and columns (predicted classes).
        class_count: How many of the names, counted from the first, are classes of the dataset.
        matrix: [classes, classes], int64; None until the run has ended, and always None outside
            the main process.

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
            # One entry per image, because mmengine drops the images that pad the last batch.
            self.results.append(self._count(*self._pairs(sample)))

    def compute_metrics(self, results: list) -> dict:
        """Sums the counts of all images into ``matrix``; there is no score to return."""
        matrix = np.zeros(len(self.names) ** 2, np.int64)
        for places, counts in results:
            matrix[places] += counts
        self.matrix = matrix.reshape(len(self.names), -1)
        return {}

    def _count(self, truth: NDArray, predicted: NDArray) -> tuple[NDArray, NDArray]:
        """Returns the places in the flat matrix, and how often each occurs."""
        count = len(self.names)
        known = (truth >= 0) & (truth < count) & (predicted >= 0) & (predicted < count)
        return np.unique((truth * count + predicted)[known], return_counts=True)

    def _pairs(self, sample: dict) -> tuple[NDArray, NDArray]:
        """Returns the true and the predicted classes as indices into ``names``."""
        raise NotImplementedError


class PixelConfusion(ConfusionMatrix):
    """Counts the classes that mmseg's segmentors predict; pixels without a class do not count."""

    def _pairs(self, sample: dict) -> tuple[NDArray, NDArray]:
        if 'gt_sem_seg' not in sample:
            return _no_pairs()
        truth, predicted = (
            sample[part]['data'].flatten().cpu().numpy().astype(np.int64)
            for part in ('gt_sem_seg', 'pred_sem_seg')
        )
        return truth, predicted


class ImageConfusion(ConfusionMatrix):
    """Counts the classes that mmpretrain's classifiers predict; images without labels do not count.

    If any image has, or is predicted to have, several classes or none, each class is counted for
    itself, as in mmpretrain's ``MultiLabelMetric`` and ``VOCMultiLabelMetric``, and there is no
    matrix.

    Attributes:
        counts: [3, classes], int64: how many images have each class, how many are predicted to have
            it, and how many of these do have it; None like ``matrix`` until the run has ended.
    """

    counts: NDArray[np.int64] | None = None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keeps the classes of the images of one batch."""
        self.results += map(_read_classes, data_samples)

    def compute_metrics(self, results: list) -> dict:
        """Sums the counts of all images; there is no score to return."""
        labeled = [classes for classes in results if classes is not None]
        if all(len(truth) == len(predicted) == 1 for truth, predicted in labeled):
            super().compute_metrics([self._count(*classes) for classes in labeled])
            matrix = self.matrix
            self.counts = np.stack([matrix.sum(axis=1), matrix.sum(axis=0), np.diagonal(matrix)])
            return {}
        self.counts = np.zeros((3, len(self.names)), np.int64)
        for truth, predicted in labeled:
            right = np.intersect1d(truth, predicted)
            for row, labels in zip(self.counts, (truth, predicted, right), strict=True):
                row[labels[(labels >= 0) & (labels < len(row))]] += 1
        return {}


class ObjectConfusion(ConfusionMatrix):
    """Counts the classes of objects that mmdet's detectors predict.

    Predicted objects with a score of at least `SCORE_THRESHOLD` are matched in order of decreasing
    score. Each takes the still unmatched true object, of any class, whose box has the highest
    intersection over union with its own, if that is at least `IOU_THRESHOLD`. The last row and
    column, background, are for predictions without a true object and for true objects that were
    missed. Unmatched predictions that lie at least half inside a region that the dataset ignores,
    such as a crowd, do not count.

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
        labels = found['labels'].cpu().numpy()
        # The number after that of the last class would be background.
        order = order[labels[order] < self.class_count]
        boxes, labels = found['bboxes'].float().cpu().numpy()[order], labels[order]
        return match_objects(
            boxes, labels, self._truth[sample['img_id']], nothing=len(self.names) - 1
        )


def match_objects(
    boxes: NDArray, labels: NDArray, truth: _Truth, *, nothing: int
) -> tuple[NDArray, NDArray]:
    """Matches the predicted objects of an image to the true ones; see `ObjectConfusion`.

    Args:
        boxes: [n, 4]: x1, y1, x2, y2 of the predicted boxes, the highest score first.
        labels: [n]: their classes.
        truth: The same for the ground truth, [m, 4] and [m], and [m], bool: whether each object is
            ignored.
        nothing: Index of the background class.

    Returns:
        The true and the predicted classes, one entry for each pair and each unmatched object.
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


def _read_classes(sample: dict) -> tuple[NDArray, NDArray] | None:
    """Returns the true and the predicted classes of an image; None if either is unknown."""
    truth, predicted = (sample.get(f'{kind}_label') for kind in ('gt', 'pred'))
    if truth is None or predicted is None:
        return None
    truth, predicted = (each.cpu().numpy().reshape(-1) for each in (truth, predicted))
    # Classes with difficult objects only, in Pascal VOC, are neither right nor wrong.
    ignored = np.setdiff1d(sample.get('gt_label_difficult') or (), truth)
    return truth, predicted[~np.isin(predicted, ignored)]


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
