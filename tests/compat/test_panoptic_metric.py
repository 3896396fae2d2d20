"""Tests mmdet's panoptic quality against values that can be counted by hand."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoPanopticMetric
from panopticapi.utils import id2rgb

CLASSES = {
    'classes': ('thing', 'stuff'),
    'thing_classes': ('thing',),
    'stuff_classes': ('stuff',),
}
VOID = 2
# Two things of 8 pixels each, in 8 x 8 pixels of stuff.
FIRST, SECOND = (slice(0, 2), slice(0, 4)), (slice(6, 8), slice(0, 4))


@pytest.fixture
def truth(tmp_path):
    """The annotation file of one image; its segments are in the folder next to it."""
    segments = np.full((8, 8), 70000)
    segments[FIRST], segments[SECOND] = 300, 5
    infos = [
        {'id': number, 'category_id': category, 'area': area, 'bbox': [0, 0, 8, 8], 'iscrowd': 0}
        for number, category, area in ((70000, 9, 48), (300, 4, 8), (5, 4, 8))
    ]
    content = {
        'images': [{'id': 1, 'file_name': 'a.jpg', 'height': 8, 'width': 8}],
        'annotations': [{'image_id': 1, 'file_name': 'a.png', 'segments_info': infos}],
        'categories': [
            {'id': 4, 'name': 'thing', 'isthing': 1},
            {'id': 9, 'name': 'stuff', 'isthing': 0},
        ],
    }
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(content))
    cv2.imwrite(str(tmp_path / 'a.png'), id2rgb(segments)[..., ::-1])
    return path


def evaluate(truth, segments, **options):
    metric = CocoPanopticMetric(ann_file=str(truth), seg_prefix=str(truth.parent), **options)
    metric.dataset_meta = CLASSES
    prediction = {
        'img_id': 1,
        'img_path': 'a.jpg',
        'ori_shape': (8, 8),
        'pred_panoptic_seg': {'sem_seg': torch.from_numpy(segments)[None]},
    }
    metric.process({}, [prediction])
    return metric.evaluate(size=1)


def predicted():
    """Returns segments as Mask2Former does: thing n is 1000 * n, stuff is 1."""
    segments = np.full((8, 8), 1, np.int32)
    segments[FIRST], segments[SECOND] = 1000, 2000
    return segments


@pytest.mark.parametrize('files', [False, True], ids=['at once', 'from files'])
def test_a_perfect_prediction(truth, tmp_path, files):
    options = {'outfile_prefix': str(tmp_path / 'out'), 'nproc': 1} if files else {}
    result = evaluate(truth, predicted(), **options)
    assert {name: result[f'coco_panoptic/{name}'] for name in ('PQ', 'PQ_th', 'PQ_st')} == {
        'PQ': 100.0,
        'PQ_th': 100.0,
        'PQ_st': 100.0,
    }


def test_a_partly_wrong_prediction(truth):
    segments = predicted()
    segments[SECOND] = 1
    segments[0, :2] = VOID
    result = evaluate(truth, segments)
    # One of two things is found, with 6 of its 8 pixels; stuff has 8 pixels too many.
    assert result['coco_panoptic/PQ_th'] == pytest.approx(100 * (6 / 8) / 1.5)
    assert result['coco_panoptic/PQ_st'] == pytest.approx(100 * 48 / 56)


def test_predictions_are_not_changed(truth):
    segments = predicted()
    segments[:, 6:] = VOID
    before = segments.copy()
    evaluate(truth, segments)
    assert np.array_equal(segments, before)
