"""Tests that datasets are found inside wrappers."""

import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset

from nat_mm.config.datasets import find_inner, find_test_dataset, unwrap_dataset, walk_datasets

LEAF, OTHER = dict(type='CocoDataset', ann_file='a.json'), dict(type='CocoDataset')
REPEATED = dict(type='RepeatDataset', times=2, dataset=LEAF)
CONCATENATED = dict(type='ConcatDataset', datasets=[REPEATED, OTHER])


def make_config(dataset):
    return Config(dict(val_dataloader=dict(dataset=dataset)))


def test_places_in_a_config():
    config = make_config(dict(type='RepeatDataset', dataset=CONCATENATED))
    assert list(find_inner(config, 'val')) == [
        ('val_dataloader.dataset.dataset.datasets.0.dataset', LEAF),
        ('val_dataloader.dataset.dataset.datasets.1', OTHER),
    ]
    assert list(find_inner(config, 'test')) == []


def test_places_of_wrappers():
    assert [place for place, _ in walk_datasets(make_config(CONCATENATED), 'val')] == [
        'val_dataloader.dataset',
        'val_dataloader.dataset.datasets.0',
        'val_dataloader.dataset.datasets.0.dataset',
        'val_dataloader.dataset.datasets.1',
    ]


@pytest.mark.parametrize('datasets', [5, 'a.json', [5]], ids=str)
def test_what_is_no_dataset(datasets):
    wrapper = dict(type='ConcatDataset', datasets=datasets)
    assert [found for _, found in walk_datasets(make_config(wrapper), 'val')] == [wrapper]


@pytest.mark.parametrize('dataset', [LEAF, REPEATED, CONCATENATED])
def test_first_test_dataset(dataset):
    config = Config(dict(test_dataloader=dict(dataset=dataset)))
    assert find_test_dataset(config) == LEAF


@pytest.mark.parametrize('loader', [{}, None, dict(dataset=None)])
def test_no_test_dataset(loader):
    assert find_test_dataset(Config(dict(test_dataloader=loader))) == {}


def test_objects():
    first, second = BaseDataset(lazy_init=True), BaseDataset(lazy_init=True)
    concatenated = ConcatDataset([first, second], lazy_init=True)
    repeated = RepeatDataset(first, times=2, lazy_init=True)
    assert list(unwrap_dataset(concatenated)) == [first, second]
    assert list(unwrap_dataset(repeated)) == list(unwrap_dataset(first)) == [first]
