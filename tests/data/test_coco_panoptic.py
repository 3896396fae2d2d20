"""Tests that datasets in COCO's panoptic format are checked like those with instances."""

import functools
import json

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope


@pytest.fixture
def content():
    segments = [
        {'id': 7, 'category_id': 1, 'bbox': [2, 2, 20, 20], 'area': 400, 'iscrowd': 0},
        {'id': 9, 'category_id': 2, 'bbox': [0, 0, 64, 48], 'area': 2672, 'iscrowd': 0},
    ]
    return {
        'images': [{'id': n, 'file_name': f'{n}.jpg', 'width': 64, 'height': 48} for n in (0, 1)],
        'annotations': [
            {
                'image_id': n,
                'file_name': f'{n}.png',
                'segments_info': json.loads(json.dumps(segments)),
            }
            for n in (0, 1)
        ],
        'categories': [
            {'id': 1, 'name': 'dog', 'isthing': 1},
            {'id': 2, 'name': 'grass', 'isthing': 0},
        ],
    }


@pytest.fixture
def config(tmp_path):
    for number in (0, 1):
        cv2.imwrite(str(tmp_path / f'{number}.jpg'), np.zeros((48, 64, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f'{number}.png'), np.zeros((48, 64, 3), np.uint8))
    init_default_scope('mmdet')
    metainfo = dict(
        classes=('dog', 'grass'), thing_classes=('dog',), stuff_classes=('grass',), palette=None
    )
    dataset = dict(
        type='CocoPanopticDataset',
        data_root=str(tmp_path),
        ann_file='panoptic.json',
        data_prefix=dict(img='.', seg='.'),
        metainfo=metainfo,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadPanopticAnnotations')],
    )
    return Config(
        dict(
            default_scope='mmdet',
            val_dataloader=dict(dataset=dataset),
            val_evaluator=dict(
                type='CocoPanopticMetric',
                ann_file=str(tmp_path / 'panoptic.json'),
                seg_prefix=str(tmp_path),
            ),
        )
    )


@pytest.fixture
def write(content, tmp_path):
    return lambda: (tmp_path / 'panoptic.json').write_text(json.dumps(content))


@pytest.fixture
def check(check):
    return functools.partial(check, splits=['val'], images=True)


def test_sound_data(check):
    assert check() == ([], [])


def test_what_is_optional(check, content):
    for annotation in content['annotations']:
        for segment in annotation['segments_info']:
            del segment['iscrowd'], segment['area']
    assert check() == ([], [])


def segment(**values):
    return lambda content: content['annotations'][1]['segments_info'][0].update(values)


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (segment(id=9), 'several segments of an image with the same id'),
        (segment(category_id=5), 'category_id is not in categories'),
        (segment(bbox=[1, 2]), 'bbox is not four numbers'),
        (lambda content: content['categories'][0].pop('isthing'), 'has no isthing'),
        (lambda content: content['annotations'][0].pop('segments_info'), 'has no segments_info'),
        (
            lambda content: content['annotations'][0].update(segments_info=[1]),
            'segments_info that is not a list of objects',
        ),
        (
            lambda content: content['categories'].reverse(),
            'is in a different order from the categories of annotation file {path}, and mmdet '
            "pairs them by position: 'dog' would be 'grass'",
        ),
    ],
    ids=['same ids', 'category', 'bbox', 'isthing', 'no segments', 'numbers', 'order'],
)
def test_errors(change, expected, check, content, tmp_path):
    change(content)
    errors, _ = check()
    expected = expected.replace('{path}', f'{tmp_path}/panoptic.json')
    assert any(expected in each for each in errors), errors


def test_segments_of_other_categories(check, config):
    config.val_dataloader.dataset.metainfo.classes = ('dog',)
    errors, _ = check()
    assert any(
        'segments of categories that are not in metainfo.classes (2 of 4' in e for e in errors
    )


def test_instances_of_the_things(check, config, content, tmp_path):
    instances = {**content, 'annotations': [], 'categories': [dict(content['categories'][0])]}
    (tmp_path / 'instances.json').write_text(json.dumps(instances))
    evaluator = dict(type='CocoMetric', ann_file=str(tmp_path / 'instances.json'), metric='segm')
    config.val_evaluator = [config.val_evaluator, evaluator]
    assert check() == ([], [])
    instances['categories'][0]['name'] = 'cat'
    (tmp_path / 'instances.json').write_text(json.dumps(instances))
    assert "has the categories ['cat'], but the classes of the config are ['dog']" in check()[0][0]
