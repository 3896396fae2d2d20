"""Tests the replacement of panopticapi: colors of segments, and panoptic quality."""

import pickle
from pathlib import Path

import numpy as np
import panopticapi
import pytest

from nat_mm import compat
from nat_mm.compat.panopticapi import evaluation, utils
from nat_mm.compat.panopticapi.evaluation import PQStat

OWN_FOLDER = Path(compat.__file__).parent / 'panopticapi'

CATEGORIES = {
    7: {'id': 7, 'isthing': 1},
    8: {'id': 8, 'isthing': 1},
    9: {'id': 9, 'isthing': 0},
    10: {'id': 10, 'isthing': 0},
}


@pytest.fixture
def counts():
    """Category 7 has two found, one invented, one missed; 8 one missed; 9 one found; 10 none."""
    stat = PQStat()
    stat[7].iou, stat[7].tp, stat[7].fp, stat[7].fn = 0.9 + 0.7, 2, 1, 1
    stat[8].fn = 1
    stat[9].iou, stat[9].tp = 0.6, 1
    return stat


def test_numbers_of_segments_survive_as_colors():
    numbers = np.array([[0, 1, 255], [256, 65536, 256**3 - 1]])
    colors = utils.id2rgb(numbers)
    assert colors.dtype == np.uint8
    assert colors[1].tolist() == [[0, 1, 0], [0, 0, 1], [255, 255, 255]]
    assert np.array_equal(utils.rgb2id(colors), numbers)
    assert np.array_equal(utils.rgb2id(colors.astype(np.int64)), numbers)


def test_panoptic_quality_of_a_category(counts):
    _, per_category = counts.pq_average(CATEGORIES, isthing=None)
    assert per_category[7] == pytest.approx({'pq': 1.6 / 3, 'sq': 0.8, 'rq': 2 / 3})
    assert per_category[8] == per_category[10] == {'pq': 0.0, 'sq': 0.0, 'rq': 0.0}


@pytest.mark.parametrize(
    ('isthing', 'expected'),
    [
        (None, {'pq': (1.6 / 3 + 0.6) / 3, 'sq': 1.4 / 3, 'rq': (2 / 3 + 1) / 3, 'n': 3}),
        (True, {'pq': 1.6 / 6, 'sq': 0.4, 'rq': 1 / 3, 'n': 2}),
        (False, {'pq': 0.6, 'sq': 0.6, 'rq': 1.0, 'n': 1}),
    ],
    ids=['all', 'things', 'stuff'],
)
def test_absent_categories_do_not_count(counts, isthing, expected):
    average, per_category = counts.pq_average(CATEGORIES, isthing=isthing)
    assert average == pytest.approx(expected)
    assert len(per_category) == {None: 4, True: 2, False: 2}[isthing]


def test_nothing_at_all_has_quality_zero():
    average, _ = PQStat().pq_average(CATEGORIES, isthing=None)
    assert average == {'pq': 0.0, 'sq': 0.0, 'rq': 0.0, 'n': 0}


def test_counts_of_processes_add_up(counts):
    counts += pickle.loads(pickle.dumps(counts))
    assert (counts[7].iou, counts[7].tp, counts[7].fp, counts[7].fn) == (3.2, 4, 2, 2)
    assert counts[8].fn == 2


@pytest.mark.skipif(
    Path(panopticapi.__file__).parent != OWN_FOLDER, reason='panopticapi itself is installed'
)
def test_mmdet_takes_every_name_from_here():
    from mmdet.apis import det_inferencer
    from mmdet.evaluation.functional import panoptic_utils
    from mmdet.evaluation.metrics import coco_panoptic_metric

    for module in (coco_panoptic_metric, panoptic_utils):
        assert module.PQStat.__module__ == 'panopticapi.evaluation'
        assert module.rgb2id.__module__ == 'panopticapi.utils'
        assert module.VOID == evaluation.VOID == 0
    assert panoptic_utils.OFFSET == evaluation.OFFSET == 256**3
    assert det_inferencer.id2rgb.__module__ == 'panopticapi.utils'
