"""Tests that the classes of a config are compared with the categories of its annotation files."""

import copy

import pytest
from mmdet.datasets import CocoDataset
from mmengine.registry import DATASETS

from nat_mm.config.datasets import SPLITS

NAMES = ('arrow', 'box', 'cross', 'disc')
FROM_FILE = "write metainfo=dict(classes=('arrow', 'box', 'cross', 'disc')) in "


@pytest.fixture
def check(check, config, content):
    """Gives the data four categories and returns the errors and the warnings."""
    for split in content.values():
        split['categories'] = [{'id': 9 - n, 'name': name} for n, name in enumerate(NAMES)]
        for number, each in enumerate(split['annotations']):
            each['category_id'] = 9 - number % 4
    for split in SPLITS:
        config[f'{split}_dataloader'].dataset.metainfo.classes = NAMES

    return check


def test_same_names_in_the_same_order(check):
    assert check() == ([], [])


def test_words_for_classes(check, config):
    """Models such as Grounding DINO detect other classes than they were trained on."""
    for split in ('val', 'test'):
        config[f'{split}_dataloader'].dataset.metainfo.classes = ('box', 'disc')
    errors, _ = check()
    assert 'but that of train_dataloader.dataset is' in errors[0]
    config.model = dict(type='GroundingDINO', language_model=dict(type='BertModel'))
    assert check() == ([], [])


def test_subset_in_the_order_of_the_file(check, config):
    for split in SPLITS:
        config[f'{split}_dataloader'].dataset.metainfo.classes = ('box', 'disc')
    assert check() == ([], [])


@pytest.mark.parametrize(
    ('classes', 'expected'),
    [
        pytest.param(
            ('arrow', 'box', 'cros', 'disc'),
            "metainfo.classes has 'cros', which annotation file {path} does not have (did you mean "
            "'cross'?); classes: 'arrow', 'box', 'cros', 'disc'; categories: 'arrow', 'box', "
            "'cross', 'disc'; " + FROM_FILE,
            id='misspelt',
        ),
        pytest.param(
            ('arrow', 'box', 'Cross', 'disc'), "did you mean 'cross'?", id='capital letter'
        ),
        pytest.param(('arrow', 'box', 'disc ', 'cross'), "has 'disc '", id='blank'),
        pytest.param(
            ('arrow', 'box', 'cross', 'disc', 'tree'),
            "has 'tree', which annotation file {path} does not have; classes",
            id='one too many',
        ),
        pytest.param(
            ('box', 'arrow', 'cross', 'disc'),
            'is in a different order from the categories of annotation file {path}, and mmdet '
            "pairs them by position: 'box' would be 'arrow'",
            id='another order',
        ),
        pytest.param(
            ('disc', 'box'),
            "write metainfo=dict(classes=('box', 'disc')) in train_dataloader.dataset",
            id='subset in another order',
        ),
        pytest.param(('box', 'box', 'disc'), "names 'box' more than once", id='doubled'),
        pytest.param(
            'disc',
            "metainfo.classes is the text 'disc', not a tuple of names: write classes=('disc',)",
            id='text',
        ),
        pytest.param(
            ('cat', 'dog'),
            "has the categories ['arrow', 'box', 'cross', 'disc'], but the classes of the config "
            "are ['cat', 'dog']: set metainfo.classes of the dataset",
            id='other names',
        ),
    ],
)
def test_classes_that_do_not_fit(classes, expected, check, config, tmp_path):
    config.train_dataloader.dataset.metainfo.classes = classes
    (error, *_), _ = check(splits=['train'])
    assert expected.replace('{path}', f'{tmp_path}/train.json') in error
    assert 'train_dataloader.dataset' in error or 'annotation file' in error


def test_two_categories_of_the_same_name(check, content):
    content['train']['categories'][1]['name'] = 'disc'
    errors, _ = check(splits=['train'])
    assert "'box', which annotation file" in errors[0] or 'several categories' in errors[0]


def test_unused_categories_of_the_same_name(check, content):
    for split in content.values():
        split['categories'] += [{'id': 20, 'name': 'tree'}, {'id': 21, 'name': 'tree'}]
    assert check() == ([], [])


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_no_metainfo(split, check, config):
    del config[f'{split}_dataloader'].dataset['metainfo']
    errors, _ = check()
    (error, *_) = [each for each in errors if 'has the categories' in each]
    assert 'it has no metainfo.classes, so those of CocoDataset hold: ' + FROM_FILE in error


def test_old_name_of_classes(check, config):
    config.val_dataloader.dataset.metainfo = dict(CLASSES=NAMES)
    errors, _ = check(splits=['val'])
    assert "('CLASSES' is mmdet 2's name for it)" in errors[0]


def test_parts_with_files_of_other_orders(check, config, content):
    content['val']['categories'].reverse()
    for split in ('val', 'test'):
        config[f'{split}_dataloader'].dataset.metainfo.classes = NAMES[::-1]
    errors, _ = check(splits=['train', 'val'])
    assert errors == [
        "val_dataloader.dataset.metainfo.classes is ('disc', 'cross', 'box', 'arrow'), but that of "
        "train_dataloader.dataset is ('arrow', 'box', 'cross', 'disc'); give both the same"
    ]


@pytest.mark.parametrize('change', ['other order', 'one missing'])
def test_file_has_to_follow_the_classes_that_are_learned(change, check, content):
    """Other classes in the config would be refused, since they are not those of the training."""
    if change == 'other order':
        content['val']['categories'].reverse()
    else:
        del content['val']['categories'][2]
        content['val']['annotations'].clear()
    (error, *_), _ = check(splits=['train', 'val'])
    write = "the model learns these classes: write ('arrow', 'box', 'cross', 'disc') as categories"
    assert error.endswith(f'{write} there')


def test_part_without_a_category(check, content):
    del content['val']['categories'][2]
    for each in content['val']['annotations']:
        each['category_id'] = 9
    errors, _ = check(splits=['val'])
    assert len(errors) == 1
    assert "val_dataloader.dataset.metainfo.classes has 'cross', which annotation file" in errors[0]


def test_other_ids_of_the_same_names(check, content):
    for each in content['val']['categories'] + content['val']['annotations']:
        key = 'category_id' if 'category_id' in each else 'id'
        each[key] += 100
    assert check() == ([], [])


def test_long_lists_are_not_shown_whole(check, config, content):
    names = [f'class {number}' for number in range(300)]
    content['train']['categories'] = [{'id': n, 'name': name} for n, name in enumerate(names)]
    names[100], names[200] = names[200], names[100]
    config.train_dataloader.dataset.metainfo.classes = names
    (error, *_), _ = check(splits=['train'])
    assert "'class 200' would be 'class 100'" in error
    assert 'and 288 more' in error
    assert len(error) < 1200


def test_evaluator_of_another_order(check, config, content, tmp_path):
    other = copy.deepcopy(content['val'])
    other['categories'].reverse()
    content['other'] = other
    config.val_evaluator.ann_file = str(tmp_path / 'other.json')
    errors, _ = check(splits=['val'])
    assert len(errors) == 1
    assert 'is in a different order from the categories of val_evaluator.ann_file' in errors[0]


def test_dataset_registered_by_a_user(check, config):
    @DATASETS.register_module(force=True)
    class OwnShapes(CocoDataset):
        METAINFO = {'classes': NAMES[::-1], 'palette': None}

    dataset = config.train_dataloader.dataset
    dataset.type = 'OwnShapes'
    del dataset['metainfo']
    (error, *_), _ = check(splits=['train'])
    assert 'it has no metainfo.classes, so those of OwnShapes hold' in error
    OwnShapes.METAINFO = {'classes': NAMES}
    assert check(splits=['train']) == ([], [])


def test_dataset_that_pairs_categories_itself(check, config):
    @DATASETS.register_module(force=True)
    class PairedByName(CocoDataset):
        def load_data_list(self):
            return []

    dataset = config.train_dataloader.dataset
    dataset.type = 'PairedByName'
    dataset.metainfo.classes = NAMES[::-1]
    assert check(splits=['train']) == ([], [])
