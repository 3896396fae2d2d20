"""Tests classes that a config names only once or takes from its annotations."""

import json

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from nat_mm.config.dataset_classes import apply_dataset_classes
from nat_mm.config.reading import load_config
from nat_mm.errors import UserError
from tests.model_zoo import ROOT

BASES = ROOT / 'configs/_base_/finetune'
DETECTORS = (
    'mask_rcnn_nat_demo',
    'mask_rcnn_nat_mini',
    'faster_rcnn_nat_demo',
    'faster_rcnn_nat_mini',
)


def write_annotations(folder, *names):
    categories = [{'id': 3 * number, 'name': name} for number, name in enumerate(names, start=1)]
    (folder / 'annotations').mkdir(exist_ok=True)
    path = folder / 'annotations/instances_train.json'
    path.write_text(json.dumps({'images': [], 'annotations': [], 'categories': categories}))


def write_config(folder, base, text=''):
    path = folder / 'mine.py'
    data = f'dict(dataset=dict(data_root={str(folder)!r}))'
    path.write_text(f'_base_ = {str(BASES / base)!r}\ntrain_dataloader = {data}\n{text}')
    return path


def class_counts(config):
    """Returns every ``num_classes`` of the model."""
    waiting, found = [config.model.to_dict()], []
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            found += [each['num_classes']] if 'num_classes' in each else []
            each = each.values()
        waiting += [value for value in each if isinstance(value, dict | list | tuple)]
    return found


@pytest.mark.parametrize('name', DETECTORS)
def test_detector_takes_them_from_its_annotations(tmp_path, name):
    write_annotations(tmp_path, 'nut', 'fig', 'date')
    config = load_config(write_config(tmp_path, f'{name}.py'))
    for part in ('train', 'val', 'test'):
        assert config[f'{part}_dataloader'].dataset.metainfo.classes == ('nut', 'fig', 'date')
    assert set(class_counts(config)) == {3}


@pytest.mark.parametrize('name', ['upernet_nat_demo', 'upernet_nat_mini'])
def test_segmentor_takes_them_from_its_config(tmp_path, name):
    path = write_config(tmp_path, f'{name}.py', "dataset_classes = ('road', 'car')\n")
    config = load_config(path)
    assert config.test_dataloader.dataset.metainfo.classes == ('road', 'car')
    assert class_counts(config) == [2, 2]


def test_runners_of_other_commands_apply_them(tmp_path):
    """OpenMMLab's train.py and test.py read the config without nat_mm."""
    write_annotations(tmp_path, 'nut', 'fig', 'date')
    config = Config.fromfile(write_config(tmp_path, 'mask_rcnn_nat_demo.py'))
    config.merge_from_dict({'work_dir': str(tmp_path / 'run'), 'load_from': None})
    runner = Runner.from_cfg(config)
    assert runner.model.roi_head.bbox_head.num_classes == 3
    assert runner.cfg.val_dataloader.dataset.metainfo.classes == ('nut', 'fig', 'date')
    assert config.dataset_classes == 'from_annotations'


def test_classes_of_the_command_line(tmp_path):
    path = write_config(tmp_path, 'mask_rcnn_nat_demo.py')
    config = load_config(path, overrides={'dataset_classes': ['star']})
    assert config.val_dataloader.dataset.metainfo.classes == ('star',)
    assert set(class_counts(config)) == {1}


def test_written_config_needs_no_annotations(tmp_path):
    write_annotations(tmp_path, 'nut', 'fig')
    config = load_config(write_config(tmp_path, 'mask_rcnn_nat_demo.py'))
    config.dump(tmp_path / 'dumped.py')
    (tmp_path / 'annotations/instances_train.json').unlink()
    again = load_config(tmp_path / 'dumped.py')
    assert again.model == config.model
    assert again.test_dataloader == config.test_dataloader


def test_datasets_within_wrappers():
    inner = [dict(type='CocoDataset'), dict(type='RepeatDataset', dataset=dict(type='CocoDataset'))]
    config = Config(
        dict(
            dataset_classes=('nut',),
            model=dict(bbox_head=[dict(num_classes=80), dict(num_classes=80)]),
            train_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=inner)),
        )
    )
    apply_dataset_classes(config)
    first, second = config.train_dataloader.dataset.datasets
    assert first.metainfo.classes == second.dataset.metainfo.classes == ('nut',)
    assert class_counts(config) == [1, 1]


def test_semantic_branch_keeps_its_classes():
    heads = dict(bbox_head=[dict(num_classes=80)], semantic_head=dict(num_classes=183))
    config = Config(dict(dataset_classes=('nut', 'fig'), model=dict(roi_head=heads)))
    apply_dataset_classes(config)
    assert config.model.roi_head.bbox_head[0].num_classes == 2
    assert config.model.roi_head.semantic_head.num_classes == 183


def test_other_configs_are_left_alone():
    config = load_config(ROOT / 'configs/detection/nat/mask_rcnn_nat_mini_3x_coco.py')
    assert 'metainfo' not in config.train_dataloader.dataset
    assert set(class_counts(config)) == {80}


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, r'mine\.py takes its classes from .*instances_train\.json, which does not exist'),
        ('{', r'instances_train\.json is not JSON'),
        ('[]', r'instances_train\.json is not COCO: it has no list of categories'),
        ('{"categories": []}', r'is not COCO: it has no list of categories'),
        ('{"categories": [{"id": 1}]}', r'each of its categories needs a name, got .*id'),
    ],
    ids=['missing', 'no JSON', 'no object', 'no categories', 'no name'],
)
def test_wrong_annotations_are_named(tmp_path, content, message):
    if content:
        write_annotations(tmp_path)
        (tmp_path / 'annotations/instances_train.json').write_text(content)
    with pytest.raises(UserError, match=message):
        load_config(write_config(tmp_path, 'mask_rcnn_nat_demo.py'))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', r'dataset_classes must be the names of the classes, such as .*got None'),
        ("dataset_classes = 'road'", r"must be the names of the classes, .*got 'road'"),
        ('dataset_classes = ()', r'must be the names of the classes, .*got \(\)'),
        ("dataset_classes = 'from_annotations'", r'no dataset has an ann_file; write the names'),
        (
            "dataset_classes = ('road', 'car')\n"
            "val_dataloader = dict(dataset=dict(metainfo=dict(classes=('car', 'road'))))",
            r'val_dataloader\.dataset\.metainfo\.classes is \(.car., .road.\), but dataset_classes',
        ),
    ],
    ids=['not set', 'a name', 'empty', 'no annotations', 'twice'],
)
def test_wrong_classes_are_named(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load_config(write_config(tmp_path, 'upernet_nat_demo.py', text))
