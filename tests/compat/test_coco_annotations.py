"""Tests that mmdet reads annotations without the fields that COCO leaves optional."""

import json

import pytest
from mmdet.datasets.api_wrappers import COCO, COCOeval, COCOPanoptic

SQUARE = [10.0, 10, 30, 10, 30, 30, 10, 30]


@pytest.fixture
def annotations():
    """A square of 20 x 20 pixels and a crowd next to it, with all fields."""
    mask = {'size': [50, 60], 'counts': [2000, 200, 800]}
    return [
        {
            'id': 1,
            'image_id': 0,
            'category_id': 3,
            'bbox': [10, 10, 20, 20],
            'area': 400.0,
            'segmentation': [SQUARE],
            'iscrowd': 0,
        },
        {
            'id': 2,
            'image_id': 0,
            'category_id': 3,
            'bbox': [40, 0, 4, 50],
            'area': 200.0,
            'segmentation': mask,
            'iscrowd': 1,
        },
    ]


def write(path, annotations):
    images = [{'id': 0, 'file_name': 'a.jpg', 'height': 50, 'width': 60}]
    categories = [{'id': 3, 'name': 'square', 'isthing': 1}]
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    path.write_text(json.dumps(content))
    return str(path)


def average_precision(path, kind):
    truth = COCO(path)
    result = {'image_id': 0, 'category_id': 3, 'score': 0.9, 'bbox': [10, 10, 20, 20]}
    if kind == 'segm':
        result['segmentation'] = truth.annToRLE({'image_id': 0, 'segmentation': [SQUARE]})
    evaluation = COCOeval(truth, truth.loadRes([result]), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize(
    'change', ['none', 'no iscrowd', 'no area', 'id 0', 'id 0.0', 'id "0"', 'id "a1"', 'id -1']
)
def test_perfect_prediction(change, kind, annotations, tmp_path):
    if change.startswith('id'):
        annotations[0]['id'] = json.loads(change.split()[1])
    elif change != 'none':
        del annotations[0][change.split()[1]]
    assert average_precision(write(tmp_path / 'a.json', annotations), kind) == pytest.approx(1)


def test_what_is_filled_in(annotations, tmp_path):
    del annotations[0]['iscrowd'], annotations[0]['area'], annotations[1]['area']
    annotations[0]['id'] = 0
    square, crowd = COCO(write(tmp_path / 'a.json', annotations)).load_anns([3, 2])
    assert (square['iscrowd'], square['area']) == (0, 400)
    assert (crowd['iscrowd'], crowd['area']) == (1, 200)


def test_ids_are_unique(annotations, tmp_path):
    annotations[0]['id'], annotations[1]['id'] = 'a', 1
    assert sorted(COCO(write(tmp_path / 'a.json', annotations)).anns) == [1, 2]


def test_area_of_what_has_no_mask(annotations, tmp_path):
    del annotations[0]['area'], annotations[0]['segmentation']
    annotations[1] |= {'area': None, 'segmentation': [[1, 2]]}
    both = COCO(write(tmp_path / 'a.json', annotations)).load_anns([1, 2])
    assert [each['area'] for each in both] == [400, 200]


def test_panoptic_segments(tmp_path):
    segment = {'id': 7, 'category_id': 3, 'bbox': [10, 10, 20, 30]}
    annotations = [{'image_id': 0, 'file_name': 'a.png', 'segments_info': [segment]}]
    (found,) = COCOPanoptic(write(tmp_path / 'a.json', annotations)).load_anns([7])
    assert (found['iscrowd'], found['area']) == (0, 600)
