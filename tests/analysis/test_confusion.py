"""Tests confusion matrices against counts by hand, and the files written from them."""

import csv
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator

from nat_mm.analysis.class_report import class_report, make_confusion, rows_of_classifier
from nat_mm.analysis.confusion import ImageConfusion, ObjectConfusion, PixelConfusion
from nat_mm.analysis.confusion_figure import (
    draw_confusion,
    list_confusions,
    shares_of_rows,
    write_confusion_table,
)

CAT, DOG, NOTHING = range(3)


def instance(box, label, *, ignore=0):
    return {'bbox': box, 'bbox_label': label, 'ignore_flag': ignore}


def found(*objects):
    boxes, labels, scores = zip(*objects, strict=True) if objects else ([], [], [])
    return {
        'bboxes': torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        'labels': torch.tensor(labels, dtype=torch.long),
        'scores': torch.tensor(scores),
    }


def count(metric, *samples):
    for sample in samples:
        metric.process({}, [sample])
    assert metric.evaluate(len(samples)) == {}
    return metric.matrix.tolist()


BOX, FAR = [0, 0, 10, 10], [50, 50, 60, 60]
OBJECTS = {
    'right': ([instance(BOX, CAT)], [(BOX, CAT, 0.9)], {(CAT, CAT): 1}),
    'confused': ([instance(BOX, CAT)], [(BOX, DOG, 0.9)], {(CAT, DOG): 1}),
    'missed': ([instance(BOX, CAT)], [], {(CAT, NOTHING): 1}),
    'invented': ([], [(BOX, DOG, 0.9)], {(NOTHING, DOG): 1}),
    'elsewhere': (
        [instance(BOX, CAT)],
        [(FAR, CAT, 0.9)],
        {(CAT, NOTHING): 1, (NOTHING, CAT): 1},
    ),
    'score too low': ([instance(BOX, CAT)], [(BOX, CAT, 0.29)], {(CAT, NOTHING): 1}),
    'score just enough': ([instance(BOX, CAT)], [(BOX, CAT, 0.3)], {(CAT, CAT): 1}),
    'half of the union': ([instance(BOX, CAT)], [([0, 0, 10, 5], CAT, 0.9)], {(CAT, CAT): 1}),
    'less than half': (
        [instance(BOX, CAT)],
        [([0, 0, 10, 4.9], CAT, 0.9)],
        {(CAT, NOTHING): 1, (NOTHING, CAT): 1},
    ),
    'twice': (
        [instance(BOX, CAT)],
        [(BOX, DOG, 0.5), (BOX, CAT, 0.9)],
        {(CAT, CAT): 1, (NOTHING, DOG): 1},
    ),
    'closest one': (
        [instance([0, 0, 10, 10], CAT), instance([2, 0, 12, 10], DOG)],
        [([2, 0, 12, 10], DOG, 0.9), ([1, 0, 11, 10], DOG, 0.8)],
        {(DOG, DOG): 1, (CAT, DOG): 1},
    ),
    'inside of a crowd': (
        [instance([0, 0, 40, 40], CAT, ignore=1)],
        [(BOX, CAT, 0.9), ([30, 30, 50, 50], CAT, 0.8)],
        {(NOTHING, CAT): 1},
    ),
    'classes that only the model knows': (
        [instance(BOX, CAT)],
        [(BOX, 2, 0.9), (FAR, 3, 0.9), (BOX, CAT, 0.8)],
        {(CAT, CAT): 1},
    ),
    'nothing': ([], [], {}),
}


@pytest.mark.parametrize(('truth', 'predicted', 'expected'), OBJECTS.values(), ids=OBJECTS)
def test_objects(truth, predicted, expected):
    metric = ObjectConfusion(['cat', 'dog'], {7: truth})
    matrix = count(metric, {'img_id': 7, 'pred_instances': found(*predicted)})
    counts = np.zeros((3, 3), int)
    for place, number in expected.items():
        counts[place] = number
    assert matrix == counts.tolist()
    assert metric.names == ['cat', 'dog', 'background']
    assert not any(line.split()[2] == 'background' for line in list_confusions(metric))


def test_images_that_fill_up_the_last_batch_count_once():
    metric = ObjectConfusion(['cat', 'dog'], {7: [instance(BOX, CAT)]})
    sample = {'img_id': 7, 'pred_instances': found((BOX, CAT, 0.9))}
    metric.process({}, [sample, sample])
    metric.evaluate(1)
    assert metric.matrix.sum() == 1


def test_pixels():
    sample = {
        'gt_sem_seg': {'data': torch.tensor([[[0, 0, 1], [1, 2, 255], [0, 1, -1]]])},
        'pred_sem_seg': {'data': torch.tensor([[[0, 1, 1], [1, 0, 2], [3, 255, 0]]])},
    }
    expected = [[2, 2, 0], [0, 4, 0], [2, 0, 0]]
    assert count(PixelConfusion(['a', 'b', 'c']), sample, sample) == expected


def test_images():
    samples = [
        {'gt_label': torch.tensor([true]), 'pred_label': torch.tensor([predicted])}
        for true, predicted in [(0, 0), (0, 1), (0, 0), (1, 1)]
    ]
    unlabeled = {'pred_label': torch.tensor([1])}
    metric = ImageConfusion(['a', 'b', 'c'])
    assert count(metric, *samples, unlabeled) == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    first, second, third = rows_of_classifier(metric)
    assert first == {'class': 'a', 'images': 3, 'precision': 1.0, 'recall': 2 / 3}
    assert second == {'class': 'b', 'images': 1, 'precision': 0.5, 'recall': 1.0}
    assert np.isnan([third['precision'], third['recall']]).all()


def test_images_of_several_classes():
    """Each class is counted for itself, as in mmpretrain's metric."""
    metrics = pytest.importorskip('mmpretrain.evaluation')
    pairs = [([0, 1], [1]), ([], [0]), ([1], [1]), ([0, 2], []), ([2, 0, 1], [0, 1, 2]), ([1], [1])]
    metric = ImageConfusion(['a', 'b', 'c'])
    for pair in pairs:
        truth, predicted = (torch.tensor(labels, dtype=torch.long) for labels in pair)
        metric.process({}, [{'gt_label': truth, 'pred_label': predicted}])
    assert metric.evaluate(len(pairs)) == {}
    assert metric.matrix is None
    expected = metrics.MultiLabelMetric.calculate(
        *([pair[part] for pair in pairs] for part in (1, 0)),
        pred_indices=True,
        target_indices=True,
        num_classes=3,
        average=None,
    )
    rows = rows_of_classifier(metric)
    assert [row['images'] for row in rows] == [3, 4, 2] == expected[3].tolist()
    for name, values in zip(('precision', 'recall'), expected, strict=False):
        np.testing.assert_allclose([100 * row[name] for row in rows], values)


def test_classes_of_difficult_objects_do_not_count():
    """Unless other objects of the class are not difficult, as in mmpretrain's metric."""
    metrics = pytest.importorskip('mmpretrain.evaluation')
    expected = metrics.VOCMultiLabelMetric(thr=0.5, average=None)
    metric = ImageConfusion(['a', 'b', 'c'])
    images = [
        ([0], [1], [1, 1, 0]),
        ([1], [], [0, 1, 0]),
        ([2], [0, 2], [0, 0, 1]),
        ([], [2], [1, 0, 1]),
    ]
    for truth, difficult, scores in images:
        sample = {
            'gt_label': torch.tensor(truth, dtype=torch.long),
            'gt_label_difficult': difficult,
            'pred_label': torch.tensor(scores).nonzero().flatten(),
            'pred_score': torch.tensor(scores, dtype=torch.float32),
        }
        for each in (expected, metric):
            each.process({}, [sample])
    scores = expected.compute_metrics(expected.results)
    metric.evaluate(len(images))
    rows = rows_of_classifier(metric)
    for name in ('precision', 'recall'):
        np.testing.assert_allclose([100 * row[name] for row in rows], scores[f'{name}_classwise'])


def test_retrieved_images_are_no_classes(tmp_path):
    models = pytest.importorskip('mmpretrain.models')

    class Retriever(models.BaseRetriever):
        forward = loss = None

    runner = SimpleNamespace(
        cfg=SimpleNamespace(default_scope='mmpretrain'),
        model=Retriever(),
        log_dir=tmp_path,
        test_dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo={'classes': ['a', 'b']})),
        test_loop=SimpleNamespace(evaluator=Evaluator([])),
    )
    with class_report(runner):
        assert runner.test_loop.evaluator.metrics == []
    assert not list(tmp_path.iterdir())


def test_metrics_that_assign_the_classes_to_others(tmp_path):
    metrics = pytest.importorskip('mmpretrain.evaluation')
    metric = metrics.ShapeBiasMetric(csv_dir=str(tmp_path / 'csv'), model_name='nat')
    runner = SimpleNamespace(
        cfg=SimpleNamespace(default_scope='mmpretrain'),
        model=torch.nn.Identity(),
        log_dir=tmp_path / 'log',
        test_dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo={'classes': ['a', 'b']})),
        test_loop=SimpleNamespace(evaluator=Evaluator([metric])),
    )
    with class_report(runner):
        assert runner.test_loop.evaluator.metrics == [metric]


def test_images_of_classes_without_a_name_do_not_count():
    samples = [
        {'gt_label': torch.tensor([true]), 'pred_label': torch.tensor([predicted])}
        for true, predicted in [(0, 2), (1, 3), (2, 0), (-1, 1), (1, -1), (0, 1)]
    ]
    assert count(ImageConfusion(['a', 'b']), *samples) == [[0, 1], [0, 0]]


def matrix_of(names, matrix):
    metric = ImageConfusion(names)
    metric.matrix = np.array(matrix)
    return metric


def test_shares_and_words():
    metric = matrix_of(['cat', 'dog', 'bird'], [[6, 2, 0], [0, 0, 0], [1, 1, 8]])
    np.testing.assert_allclose(
        shares_of_rows(metric.matrix), [[0.75, 0.25, 0], [0, 0, 0], [0.1, 0.1, 0.8]]
    )
    assert list_confusions(metric, limit=2) == [
        '25% of cat taken for dog',
        '10% of bird taken for cat',
    ]


def test_table(tmp_path):
    metric = matrix_of(['a, "b"', '猫'], [[6, 2], [0, 3]])
    write_confusion_table(metric, tmp_path / 'table.csv')
    with open(tmp_path / 'table.csv', encoding='utf-8', newline='') as file:
        rows = list(csv.reader(file))
    assert rows == [['true class', 'a, "b"', '猫'], ['a, "b"', '6', '2'], ['猫', '0', '3']]


@pytest.mark.parametrize('classes', [1, 2, 40, 300])
def test_figure(classes, tmp_path):
    """Each class gets at least two pixels, and names may contain anything."""
    names = ['$cost_{$', 'x' * 80, *map(str, range(classes))][-classes:]
    metric = matrix_of(names, np.eye(classes, dtype=int))
    draw_confusion(metric, tmp_path / 'figure.png')
    height, width = cv2.imread(str(tmp_path / 'figure.png')).shape[:2]
    assert 2 * classes < height <= width < 3000


@pytest.mark.parametrize('missing', ['img_id', 'instances', 'classes'])
def test_dataset_that_does_not_say_its_objects(missing):
    class Dataset:
        metainfo = {} if missing == 'classes' else {'classes': ['cat']}

        def __len__(self):
            return 1

        def get_data_info(self, index):
            known = {'img_id': index, 'instances': []}
            return {key: value for key, value in known.items() if key != missing}

    assert make_confusion('mmdet', Dataset()) is None
