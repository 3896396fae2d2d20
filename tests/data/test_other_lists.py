"""Tests that the images of datasets without a check of their own are checked before training."""

import json

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from nat_mm.data.check import check_config

XML = """<annotation><size><width>{width}</width><height>48</height></size><object><name>dog</name>
<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>40</xmax><ymax>40</ymax></bndbox></object></annotation>"""


def write_voc(folder):
    """Writes VOC's layout with the images 0 to 3 in train.txt."""
    for name in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (folder / name).mkdir(parents=True)
    for number in range(4):
        cv2.imwrite(str(folder / f'JPEGImages/{number}.jpg'), np.zeros((48, 64, 3), np.uint8))
        (folder / f'Annotations/{number}.xml').write_text(XML.format(width=64))
    (folder / 'ImageSets/Main/train.txt').write_text('0\n1\n2\n3\n')
    return dict(
        type='mmdet.VOCDataset',
        data_root=str(folder),
        ann_file='ImageSets/Main/train.txt',
        data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=('dog',)),
    )


def write_labels(folder):
    """Writes a list of several classes for each of the images 0 to 3."""
    (folder / 'JPEGImages').mkdir(parents=True)
    for number in range(4):
        cv2.imwrite(str(folder / f'JPEGImages/{number}.jpg'), np.zeros((48, 64, 3), np.uint8))
    entries = [dict(img_path=f'{number}.jpg', gt_label=[0]) for number in range(4)]
    content = dict(metainfo=dict(classes=['dog', 'cat']), data_list=entries)
    (folder / 'train.json').write_text(json.dumps(content))
    return dict(
        type='mmpretrain.MultiLabelDataset',
        data_root=str(folder),
        ann_file='train.json',
        data_prefix='JPEGImages',
    )


@pytest.fixture(params=[write_voc, write_labels], ids=['voc', 'multi-label'])
def check(request, tmp_path):
    """Returns what is wrong with a dataset in ``tmp_path / 'data'``."""
    if request.param is write_labels:
        pytest.importorskip('mmpretrain')
    dataset = request.param(tmp_path / 'data')
    scope = dataset['type'].partition('.')[0]
    dataset['pipeline'] = [dict(type='LoadImageFromFile')]
    split = dict(batch_size=2, dataset=dataset)
    config = Config(dict(default_scope=scope, train_dataloader=split, val_dataloader=split))

    def run(*splits):
        report = check_config(config, splits=splits or ('train',))
        return [each.text for each in report.findings if 'has no model' not in each.text]

    return run


def test_sound(check):
    assert check() == []


def test_sound_without_warnings_of_mmengine(check, monkeypatch):
    warnings = []
    monkeypatch.setattr(
        'mmengine.dataset.base_dataset.print_log', lambda *args, **_: warnings.append(args)
    )
    check()
    assert warnings == []


def test_numbers_of_images_of_several_classes(tmp_path):
    pytest.importorskip('mmpretrain')
    dataset = write_labels(tmp_path)
    content = json.loads((tmp_path / 'train.json').read_text())
    for entry, labels in zip(content['data_list'], ([0], [0, 1], [], [1, 0]), strict=True):
        entry['gt_label'] = labels
    (tmp_path / 'train.json').write_text(json.dumps(content))
    config = Config(dict(default_scope='mmpretrain', train_dataloader=dict(dataset=dataset)))
    (summary,) = check_config(config, splits=['train'], summarize=True).summaries
    assert summary.facts == {'images': '4'}
    assert summary.classes == {'dog': {'images': 3}, 'cat': {'images': 2}}


@pytest.mark.parametrize(
    ('label', 'text'),
    [
        (None, 'must be class numbers, got None'),
        (['dog'], "must be class numbers, got ['dog']"),
        ('dog', "must be class numbers, got 'dog'"),
        ([[0], [0, 1]], 'must be class numbers, got [[0], [0, 1]]'),
        ([0, 2], 'has 2, but classes are numbered from 0 to 1'),
        ([-1], 'has -1, but classes are numbered from 0 to 1'),
        ([], None),
        (1, None),
    ],
    ids=str,
)
def test_class_numbers_of_images(label, text, tmp_path):
    pytest.importorskip('mmpretrain')
    dataset = dict(write_labels(tmp_path), pipeline=[dict(type='LoadImageFromFile')])
    content = json.loads((tmp_path / 'train.json').read_text())
    content['data_list'][2]['gt_label'] = label
    (tmp_path / 'train.json').write_text(json.dumps(content))
    loader = dict(dataset=dataset)
    config = Config(
        dict(default_scope='mmpretrain', train_dataloader=loader, test_dataloader=loader)
    )
    place = f'{tmp_path}/train.json: the gt_label of {tmp_path}/JPEGImages/2.jpg'
    found = [each.text for each in check_config(config, splits=['train']).errors]
    assert [each for each in found if 'gt_label' in each] == ([f'{place} {text}'] if text else [])
    found = [each.text for each in check_config(config, splits=['test']).errors]
    assert not any('gt_label' in each for each in found)


class NameToNumber:
    """A user's transform."""

    def __call__(self, results):
        return results


@pytest.mark.parametrize(
    ('others', 'pipeline'),
    [({'gt_score': [0.0, 1.0]}, []), ({'name': 'dog'}, [dict(type=NameToNumber)])],
    ids=['scores', 'transform'],
)
def test_images_without_class_numbers(others, pipeline, tmp_path):
    """mmpretrain's heads and metrics for several labels also take scores."""
    pytest.importorskip('mmpretrain')
    dataset = dict(write_labels(tmp_path), pipeline=[dict(type='LoadImageFromFile'), *pipeline])
    content = json.loads((tmp_path / 'train.json').read_text())
    for entry in content['data_list']:
        del entry['gt_label']
        entry.update(others)
    (tmp_path / 'train.json').write_text(json.dumps(content))
    config = Config(dict(default_scope='mmpretrain', train_dataloader=dict(dataset=dataset)))
    found = [each.text for each in check_config(config, splits=['train']).errors]
    assert not any('gt_label' in each for each in found)


def test_missing(check, tmp_path):
    (tmp_path / 'data/JPEGImages/2.jpg').unlink()
    (tmp_path / 'data/JPEGImages/3.jpg').unlink()
    place = f'{tmp_path}/data/JPEGImages/2.jpg'
    assert check() == [f'a file of the train dataset does not exist: {place}, and 1 more']


def test_no_image(check, tmp_path):
    (tmp_path / 'data/JPEGImages/2.jpg').write_text('<html>not found</html>')
    place = f'{tmp_path}/data/JPEGImages/2.jpg'
    assert check() == [f'a file of the train dataset is not an image: {place}']


def test_missing_annotation(tmp_path):
    dataset = dict(write_voc(tmp_path), pipeline=[dict(type='LoadImageFromFile')])
    config = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset)))
    (tmp_path / 'Annotations/2.xml').unlink()
    texts = [each.text for each in check_config(config, splits=['train']).errors]
    path = tmp_path / 'Annotations/2.xml'
    assert f'None: train_dataloader.dataset: {path}: No such file or directory' in texts
    (tmp_path / 'Annotations/2.xml').write_text('<annotation>')
    texts = [each.text for each in check_config(config, splits=['train']).errors]
    assert any('no element found: line 1' in each for each in texts)


def test_classes_in_the_annotations(tmp_path):
    pytest.importorskip('mmpretrain')
    dataset = dict(write_labels(tmp_path), pipeline=[dict(type='LoadImageFromFile')])
    model = dict(type='ImageClassifier', head=dict(type='MultiLabelLinearClsHead', num_classes=3))
    config = Config(
        dict(default_scope='mmpretrain', model=model, train_dataloader=dict(dataset=dataset))
    )
    texts = [each.text for each in check_config(config, splits=['train']).errors]
    start = 'the train dataset has 2 classes, but model.head.num_classes is 3: set it to 2'
    assert any(each.startswith(start) for each in texts)


def test_no_object_of_the_classes(tmp_path):
    dataset = write_voc(tmp_path)
    dataset |= dict(metainfo=dict(classes=('cat',)), filter_cfg=dict(filter_empty_gt=True))
    config = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset)))
    texts = [each.text for each in check_config(config, splits=['train']).errors]
    assert 'the train dataset has no image with annotations of its classes' in texts


def test_trained_and_tested(check):
    (text,) = check('train', 'val')
    assert text.startswith('4 of 4 images of the val dataset are also trained on')


def test_folds(tmp_path):
    pytest.importorskip('mmpretrain')
    dataset = dict(write_labels(tmp_path / 'data'), pipeline=[dict(type='LoadImageFromFile')])
    folds = {
        f'{split}_dataloader': dict(
            batch_size=2,
            dataset=dict(type='KFoldDataset', dataset=dataset, fold=0, test_mode=split == 'val'),
        )
        for split in ('train', 'val')
    }
    config = Config(dict(default_scope='mmpretrain', **folds))
    report = check_config(config, splits=['train', 'val'])
    assert [each.text for each in report.warnings] == []


def test_another_size(tmp_path):
    dataset = write_voc(tmp_path / 'data')
    (tmp_path / 'data/Annotations/1.xml').write_text(XML.format(width=80))
    dataset['pipeline'] = [dict(type='LoadImageFromFile')]
    config = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset)))
    texts = [each.text for each in check_config(config, splits=['train']).errors]
    start = 'train_dataloader.dataset has images whose files have another size (1 of 4, first: '
    assert any(each.startswith(start) and '64 x 48, not 80 x 48' in each for each in texts)
