"""Tests that faults of annotations in COCO's format are found before training."""

import json
import math

import pytest

from nat_mm.data.coco import check_coco
from nat_mm.data.sources import find_sources
from nat_mm.data.summaries import Summary


def test_sound_data(check):
    assert check(images=True) == ([], [])


def every(content):
    return content['train']['annotations'] + content['val']['annotations']


def drop(name, entries='annotations', step=1):
    def change(content):
        for split in content.values():
            for entry in split[entries][::step]:
                entry.pop(name)

    return change


def put(name, value, entries='annotations', index=1):
    def change(content):
        content['train'][entries][index][name] = value

    return change


def double_annotation(content):
    content['train']['annotations'][3]['id'] = content['train']['annotations'][2]['id']


def double_image(content):
    content['train']['images'][3]['id'] = content['train']['images'][2]['id']


def double_category(content):
    content['train']['categories'][1]['id'] = 1


def to_corners(content):
    for each in every(content):
        x, y, width, height = each['bbox']
        each['bbox'] = [x, y, x + width, y + height]


def turn_ids_into_text(content):
    for each in content['train']['annotations']:
        each['category_id'] = str(each['category_id'])


RLE = {'size': [96, 128], 'counts': [96 * 128 - 10, 10]}


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        pytest.param(
            drop('segmentation', step=3),
            'has annotations without segmentation, but the pipeline loads masks; to train boxes '
            'without masks, set model.roi_head.mask_head=None',
            id='no segmentation',
        ),
        pytest.param(
            put('segmentation', []),
            'without segmentation, but the pipeline loads masks',
            id='empty segmentation',
        ),
        pytest.param(
            put('segmentation', None), '(1 of 12, first: id 2 of 00.jpg)', id='null segmentation'
        ),
        pytest.param(
            put('segmentation', [1, 2, 3, 4, 5, 6]),
            'segmentation is not a list of polygons',
            id='flat polygon',
        ),
        pytest.param(
            put('segmentation', [[[1, 2], [3, 4], [5, 6]]]),
            'first: id 2, [[[1, 2], [3, 4], [5, 6]]]',
            id='polygon of points',
        ),
        pytest.param(
            put('segmentation', [[1, 2, 3, 4, 5, 'six']]), 'is not a list of polygons', id='text'
        ),
        pytest.param(
            put('segmentation', {**RLE, 'size': [128, 96]}),
            'masks whose size, [height, width], is not that of their image (1 of 12, first: id 2, '
            '[128, 96] in an image of [96, 128])',
            id='RLE of another size',
        ),
        pytest.param(
            put('segmentation', {**RLE, 'counts': [5, 6]}),
            'counts do not add up to the pixels',
            id='RLE of too few pixels',
        ),
        pytest.param(put('segmentation', {'size': [96, 128]}), 'nor RLE', id='RLE without counts'),
        pytest.param(put('segmentation', 'polygon'), 'nor RLE', id='text as segmentation'),
        pytest.param(double_annotation, 'several annotations with the same id', id='same ids'),
        pytest.param(double_image, 'several images with the same id', id='same image ids'),
        pytest.param(double_category, 'several categories with the same id', id='same categories'),
        pytest.param(
            drop('bbox', step=5), "an entry of 'annotations' has no bbox (3 of 12", id='no bbox'
        ),
        pytest.param(drop('id'), "entry of 'annotations' has no id", id='no annotation id'),
        pytest.param(drop('image_id'), "of 'annotations' has no image_id", id='no image_id'),
        pytest.param(drop('category_id'), "of 'annotations' has no category_id", id='no category'),
        pytest.param(put('category_id', 9), 'category_id is not in categories', id='category 9'),
        pytest.param(turn_ids_into_text, 'is not in categories (12 of 12', id='ids as text'),
        pytest.param(put('category_id', [1]), 'is not an id', id='list as category_id'),
        pytest.param(put('id', [1]), 'id is neither', id='list as id'),
        pytest.param(put('bbox', [1, 2, 3]), 'bbox is not four numbers', id='three numbers'),
        pytest.param(put('bbox', [1, 2, '3', 4]), 'bbox is not four numbers', id='text in bbox'),
        pytest.param(put('bbox', [1, 2, math.nan, 4]), 'bbox is not finite', id='NaN'),
        pytest.param(put('bbox', [50, 50, -20, 30]), 'boxes with negative width', id='negative'),
        pytest.param(to_corners, 'has boxes that are x1, y1, x2, y2', id='corners'),
        pytest.param(put('area', '400'), 'area is not a number', id='area as text'),
        pytest.param(put('iscrowd', '0'), 'iscrowd is neither 0 nor 1', id='iscrowd as text'),
        pytest.param(put('file_name', 7, 'images'), 'file_name that is not text', id='number'),
        pytest.param(put('width', '128', 'images'), 'width or height is not a number', id='width'),
        pytest.param(put('height', 0, 'images'), 'width or height is not positive', id='height'),
        pytest.param(drop('height', 'images'), "of 'images' has no height", id='no height'),
        pytest.param(drop('name', 'categories'), "of 'categories' has no name", id='no name'),
    ],
)
def test_errors(change, expected, check, content):
    change(content)
    errors, _ = check()
    assert any(expected in each for each in errors), errors
    assert all('annotation file ' in each or 'no image with' in each for each in errors)


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        pytest.param(
            put('segmentation', [[1, 2, 3, 4]]),
            'polygons of fewer than 6 or an odd number of coordinates, whose objects mmdet ignores '
            '(1 of 12, first: id 2 of 00.jpg)',
            id='short polygon',
        ),
        pytest.param(
            put('segmentation', [[1, 2, 9, 2, 9, 9], [1, 2, 3]]),
            'which mmdet ignores',
            id='one short polygon of two',
        ),
        pytest.param(put('bbox', [9, 9, 0, 20]), 'smaller than a pixel', id='empty box'),
        pytest.param(put('area', 0), 'area is not positive', id='empty area'),
        pytest.param(put('bbox', [99, 9, 80, 20]), 'stick out', id='box that sticks out'),
        pytest.param(put('image_id', 99), 'image_id is not in images', id='unknown image'),
    ],
)
def test_warnings(change, expected, check, content):
    change(content)
    errors, warnings = check(splits=['train'])
    assert errors == []
    assert len(warnings) == 1
    assert expected in warnings[0]


@pytest.mark.parametrize(
    'change',
    [
        drop('iscrowd'),
        drop('area'),
        put('id', 0, index=0),
        put('segmentation', RLE),
        put('iscrowd', True),
        put('ignore', 1),
        put('score', math.nan),
        put('keypoints', [1, 2, 2]),
        put('bbox', [9, 9, 30.5, 20.25]),
        lambda content: content['train']['categories'].append({'id': 0, 'name': 'everything'}),
        lambda content: content['train'].update(info={'year': 2026}, licenses=None),
    ],
    ids=[
        'no iscrowd',
        'no area',
        'id 0',
        'RLE',
        'iscrowd true',
        'ignored',
        'NaN elsewhere',
        'keypoints',
        'fractions',
        'another category',
        'info',
    ],
)
def test_what_is_optional(change, check, content):
    change(content)
    assert check() == ([], [])


def test_masks_do_not_matter_to_boxes(check, config, content):
    drop('segmentation', step=2)(content)
    put('segmentation', 'polygon')(content)
    config.train_dataloader.dataset.pipeline[1].with_mask = False
    for split in ('val', 'test'):
        config[f'{split}_evaluator'].metric = 'bbox'
    assert check() == ([], [])


def test_evaluator_needs_masks(check, config, content):
    drop('segmentation')(content)
    config.train_dataloader.dataset.pipeline[1].with_mask = False
    errors, _ = check(splits=['val'])
    assert len(errors) == 1
    assert 'without segmentation, but val_evaluator compares masks' in errors[0]


@pytest.mark.parametrize(
    ('polygon', 'is_wrong'), [([1, 2, 3, 4], True), ([1, 2], True), ([1, 2, 9, 2, 9, 9, 7], False)]
)
def test_evaluator_of_short_polygons(polygon, is_wrong, check, content):
    content['val']['annotations'][0]['segmentation'] = [polygon]
    errors, _ = check(splits=['val'])
    assert len(errors) == is_wrong
    assert all('fewer than 6 coordinates, but val_evaluator compares' in each for each in errors)


def test_objects_all_left_out(check, content):
    for each in content['train']['annotations']:
        each['bbox'] = [value / 200 for value in each['bbox']]
    errors, warnings = check(splits=['train'])
    assert errors == ['the train dataset has no image with annotations of its classes']
    assert 'they look like fractions of the image, COCO has pixels' in warnings[0]


@pytest.mark.parametrize(
    ('raw', 'expected'),
    [
        (b'', 'is not JSON'),
        (b'\x1f\x8b\x08junk', 'it is packed by gzip: unpack it'),
        (b'PK\x03\x04junk', 'it is a zip archive: unpack it'),
        (b'\xef\xbb\xbf{}', 'byte order mark: save it as UTF-8 without one'),
        ('{}'.encode('utf-16'), 'it is UTF-16: save it as UTF-8'),
        (
            b'{"images": [{"file_name": "\xe4.jpg"}], "annotations": [], "categories": []}',
            "is not JSON: an entry of 'images'",
        ),
        (b'{"images": [', 'is not JSON'),
        (b'{"images": {}, "annotations": [], "categories": []}', "has no list 'images'"),
        (b'{"images": [], "annotations": [], "categories": null}', "has no list 'categories'"),
        (b'{"annotations": [], "categories": []}', "has no list 'images'"),
        (b'[' * 100_000, 'is not'),
    ],
    ids=[
        'empty',
        'gzip',
        'zip',
        'byte order mark',
        'UTF-16',
        'Latin-1',
        'cut off',
        'object as list',
        'null',
        'no images',
        'nested',
    ],
)
def test_files_that_are_not_coco(raw, expected, check, write, config, tmp_path):
    (tmp_path / 'other.json').write_bytes(raw)
    config.train_dataloader.dataset.ann_file = str(tmp_path / 'other.json')
    (error,), _ = check(splits=['train'])
    assert error.startswith(f'annotation file {tmp_path}/other.json ')
    assert expected in error


def test_test_part_without_annotations(check, config, content):
    del content['val']['annotations']
    (error,), _ = check(splits=['test'])
    assert 'has no annotations to compare with' in error
    config.test_evaluator.update(format_only=True, outfile_prefix='results')
    assert check(splits=['test']) == ([], [])


def test_evaluation_without_objects(check, content):
    content['val']['annotations'] = []
    errors, (warning,) = check(splits=['val'])
    assert errors == []
    assert warning.endswith('has no annotations of the classes, so that metrics will be -1')


def test_training_without_annotations(check, content):
    del content['train']['annotations']
    errors, _ = check(splits=['train'])
    assert "it has no list 'annotations'" in errors[0]


@pytest.mark.parametrize('annotations', [None, []], ids=['no list', 'an empty list'])
@pytest.mark.parametrize('is_unlabeled', [True, False], ids=['unlabeled', 'background'])
def test_images_without_objects_next_to_others(
    annotations, is_unlabeled, check, config, content, tmp_path
):
    """Semi-supervised training learns from unlabeled images, a detector also from background."""
    path = tmp_path / 'more.json'
    more = {'images': content['val']['images'], 'categories': content['val']['categories']}
    path.write_text(json.dumps(more if annotations is None else {**more, 'annotations': []}))
    labeled = config.train_dataloader.dataset
    others = {**labeled, 'ann_file': str(path), 'data_prefix': dict(img='images/validation')}
    others['filter_cfg'] = dict(filter_empty_gt=False)
    if is_unlabeled:
        others['pipeline'] = [dict(type='LoadImageFromFile'), dict(type='LoadEmptyAnnotations')]
    config.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[labeled, others])
    assert check(splits=['train'], images=True) == ([], [])


@pytest.mark.parametrize('drops_images', [False, True])
def test_only_background(check, config, content, drops_images):
    content['train']['annotations'] = []
    filters = dict(filter_empty_gt=drops_images)
    dataset = {**config.train_dataloader.dataset, 'filter_cfg': filters}
    config.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[dataset, dataset])
    errors, _ = check(splits=['train'])
    assert errors == ['the train dataset has no image with annotations of its classes']


def test_filter_that_leaves_no_image(check, config, content, tmp_path):
    path = tmp_path / 'more.json'
    path.write_text(json.dumps({**content['val'], 'annotations': []}))
    labeled = config.train_dataloader.dataset
    others = {**labeled, 'ann_file': str(path)}
    config.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[labeled, others])
    errors, _ = check(splits=['train'])
    assert errors == ['the train dataset has no image with annotations of its classes']


def test_evaluator_with_another_file(check, config, content, tmp_path):
    config.val_evaluator.ann_file = str(tmp_path / 'train.json')
    (error,), _ = check(splits=['val'])
    assert error.startswith(f'val_evaluator.ann_file {tmp_path}/train.json has other images')
    assert error.endswith(f'write val_evaluator.ann_file={tmp_path}/val.json')


def test_evaluator_with_a_copy(check, config, content, write, tmp_path):
    (tmp_path / 'copy.json').write_text(json.dumps(content['val']))
    config.val_evaluator = [
        config.val_evaluator,
        dict(type='DumpDetResults', out_file_path='x.pkl'),
    ]
    config.val_evaluator[0].ann_file = str(tmp_path / 'copy.json')
    assert check(splits=['val']) == ([], [])


def test_images_that_are_trained_and_tested_on(check, config):
    config.val_dataloader.dataset.update(
        ann_file=config.train_dataloader.dataset.ann_file,
        data_prefix=dict(img='images/training'),
    )
    config.val_evaluator.ann_file = config.train_dataloader.dataset.ann_file
    errors, (warning,) = check(splits=['train', 'val'])
    assert errors == []
    assert warning.startswith('6 of 6 images of the val dataset are also trained on')


def test_inside_of_wrappers(check, config, content):
    dataset = config.train_dataloader.dataset
    repeated = dict(type='RepeatDataset', times=2, dataset=dataset)
    config.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[repeated, dataset])
    put('bbox', [1, 2, 3])(content)
    errors, _ = check(splits=['train'])
    assert len([each for each in errors if 'bbox is not four numbers' in each]) == 1


def test_summary(config, write):
    write()
    found = check_coco(config, {'train': find_sources(config, 'train')}, images=False)
    (summary,) = (each for each in found if isinstance(each, Summary))
    assert summary.facts['images'] == '6'
    assert summary.facts['annotations'] == '12'
    assert summary.facts['longest side'] == '128 to 128, median 128'
    assert summary.classes == {
        'box': {'images': 6, 'instances': 6, 'small': 0, 'medium': 6, 'large': 0},
        'disc': {'images': 6, 'instances': 6, 'small': 0, 'medium': 6, 'large': 0},
    }


def test_masks_without_any_image(check, content):
    split, mask = content['train'], dict(counts=[1], size=[1, 1])
    split['images'] = []
    split['annotations'] = [{**each, 'segmentation': mask} for each in split['annotations']]
    errors, warnings = check(splits=['train'])
    assert errors == ['the train dataset has no image with annotations of its classes']
    assert 'has annotations whose image_id is not in images' in ' '.join(warnings)
