"""Reports, after a test, how well each class is told apart from the others."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.logging import print_log
from mmengine.runner import FlexibleRunner, Runner
from rich.console import Console
from rich.table import Table

from nat_mm.analysis.confusion import (
    ConfusionMatrix,
    ImageConfusion,
    ObjectConfusion,
    PixelConfusion,
)
from nat_mm.analysis.confusion_figure import (
    draw_confusion,
    list_confusions,
    write_confusion_table,
)
from nat_mm.files import whole_file
from nat_mm.inference.model_settings import retrieves
from nat_mm.wrappers import unwrap_model

_MOST_ROWS = 100
"""Up to this many classes, all are printed."""
_ROWS = 20
"""With more classes, only this many are printed, worst first."""
_IOU_NAMES = {'bbox': 'box', 'segm': 'mask'}

Rows = list[dict[str, Any]]
"""One dictionary per class with its name, counts and scores."""


@contextmanager
def class_report(runner: Runner | FlexibleRunner) -> Iterator[None]:
    """Reports on each class once the ``with`` block has run a test.

    Writes to the run's log folder: ``confusion_matrix.png`` and ``.csv``, unless images have
    several classes, and ``class_scores.csv`` for a classifier or a detector evaluated by COCO's
    metric. The scores are also logged, as mmseg does for a segmentor.

    Args:
        runner: A runner whose test loop has been built.
    """
    evaluator = getattr(runner.test_loop, 'evaluator', None)
    if not isinstance(evaluator, Evaluator):
        yield
        return
    for metric in evaluator.metrics:
        if type(metric).__name__ == 'CocoPanopticMetric':
            metric.classwise = True
    dataset = runner.test_dataloader.dataset
    confusion = None
    # mmpretrain's ShapeBiasMetric assigns the classes of the model to others, those of the data.
    is_mapped = any(type(metric).__name__ == 'ShapeBiasMetric' for metric in evaluator.metrics)
    if not is_mapped and not retrieves(unwrap_model(runner.model)):
        confusion = make_confusion(runner.cfg.default_scope, dataset)
    if confusion is not None:
        evaluator.metrics.append(confusion)
    with record_evaluations() as evaluations:
        yield
    if not is_main_process():
        return
    folder = Path(runner.log_dir)
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    rows = [row for evaluated in evaluations for row in rows_of_detector(evaluated, classes)]
    if (
        isinstance(confusion, ImageConfusion)
        and confusion.counts is not None
        and confusion.counts[0].any()
    ):
        rows = rows_of_classifier(confusion)
    if rows:
        _report_rows(rows, folder / 'class_scores.csv')
    if confusion is not None and confusion.matrix is not None and confusion.matrix.any():
        path = folder / 'confusion_matrix.png'
        draw_confusion(confusion, path)
        write_confusion_table(confusion, path.with_suffix('.csv'))
        most = '; '.join(list_confusions(confusion)) or 'none'
        print_log(
            f'confusion matrix: {path}, counts in .csv; most frequent mistakes: {most}', 'current'
        )


def make_confusion(scope: str, dataset: Any) -> ConfusionMatrix | None:
    """Creates the confusion matrix for a toolbox's models.

    Args:
        scope: The toolbox: ``mmdet``, ``mmseg`` or ``mmpretrain``.
        dataset: Test dataset.

    Returns:
        The metric; None if the dataset does not provide its classes or its objects.
    """
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if not classes:
        return None
    if scope == 'mmseg':
        return PixelConfusion(classes)
    if scope == 'mmpretrain':
        return ImageConfusion(classes)
    truth = {}
    for index in range(len(dataset)):
        known = dataset.get_data_info(index)
        # mmdet prints its own table for panoptic segments.
        if 'img_id' not in known or 'instances' not in known or 'segments_info' in known:
            return None
        truth[known['img_id']] = known['instances']
    return ObjectConfusion(classes, truth)


@contextmanager
def record_evaluations() -> Iterator[list[Mapping[str, Any]]]:
    """Records COCO's evaluations in the ``with`` block; mmdet itself keeps only the means.

    Yields:
        For each dataset, pycocotools' evaluations by ``bbox`` and ``segm``; filled as they run.
    """
    try:
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError:
        yield []
        return
    evaluations: list[dict[str, Any]] = []
    accumulate = COCOeval.accumulate

    def keep(evaluation: Any, *args: Any) -> None:
        accumulate(evaluation, *args)
        kind = evaluation.params.iouType
        if not evaluation.params.useCats or kind not in _IOU_NAMES:
            return
        if not evaluations or kind in evaluations[-1]:
            evaluations.append({})
        evaluations[-1][kind] = evaluation

    COCOeval.accumulate = keep
    try:
        yield evaluations
    finally:
        COCOeval.accumulate = accumulate


def rows_of_detector(evaluations: Mapping[str, Any], classes: Sequence[str]) -> Rows:
    """Returns the average precision of each class.

    Args:
        evaluations: pycocotools' evaluations by ``bbox`` and ``segm``.
        classes: The classes in the order of the rows.

    Returns:
        For each class, the number of ``images`` that contain it and of its ``objects``, and ``AP``
        and ``AP50`` of boxes and masks, NaN for a class that does not occur.
    """
    rows = {}
    for kind, evaluation in evaluations.items():
        truth, params = evaluation.cocoGt, evaluation.params
        # Unlike mmdet's own table, do not assume that the categories are in the config's order.
        for place, category in enumerate(params.catIds):
            annotations = truth.loadAnns(
                truth.getAnnIds(imgIds=params.imgIds, catIds=[category], iscrowd=False)
            )
            row = rows.setdefault(
                int(category),
                {
                    'class': truth.cats[category]['name'],
                    'images': len({each['image_id'] for each in annotations}),
                    'objects': len(annotations),
                },
            )
            # IoU threshold, recall, class, size, number of objects per image
            precision = evaluation.eval['precision'][:, :, place, 0, -1]
            at_50 = precision[np.isclose(params.iouThrs, 0.5)]
            row[f'{_IOU_NAMES[kind]} AP'] = _mean(precision)
            row[f'{_IOU_NAMES[kind]} AP50'] = _mean(at_50)
    places = {name: place for place, name in enumerate(classes)}
    return sorted(rows.values(), key=lambda row: places.get(row['class'], len(places)))


def rows_of_classifier(confusion: ImageConfusion) -> Rows:
    """Returns the precision and recall of each class.

    Args:
        confusion: The counts after the run.

    Returns:
        For each class, its number of ``images``, and ``precision`` and ``recall``, NaN where they
        are undefined.
    """
    images, predicted, right = confusion.counts
    with np.errstate(invalid='ignore'):
        precision, recall = right / predicted, right / images
    return [
        {'class': name, 'images': int(count), 'precision': float(p), 'recall': float(r)}
        for name, count, p, r in zip(confusion.names, images, precision, recall, strict=True)
    ]


def _report_rows(rows: Rows, path: Path) -> None:
    with whole_file(path) as unfinished, unfinished.open('w', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    shown, title = rows, f'classes ({path})'
    if len(rows) > _MOST_ROWS:
        score = list(rows[0])[-1]
        shown = sorted(rows, key=lambda row: np.nan_to_num(row[score], nan=np.inf))[:_ROWS]
        title = f'the {_ROWS} worst of {len(rows)} classes; all are in {path}'
    print_log(f'{title}\n{_format(shown)}', 'current')


def _format(rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats the rows as a plain-text table."""
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, justify='left' if name == 'class' else 'right', no_wrap=True)
    for row in rows:
        table.add_row(*map(_cell, row.values()))
    text = io.StringIO()
    Console(file=text, width=160, markup=False, color_system=None).print(table)
    return text.getvalue().rstrip()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return '-' if np.isnan(value) else f'{value:.3f}'
    return str(value)


def _mean(precision: np.ndarray) -> float:
    """Averages the defined values; COCO has -1 where a class does not occur."""
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else float('nan')
