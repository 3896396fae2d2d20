"""Tests datasets that cannot be built or inspected."""

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from nat_mm.data.sources import find_sources
from nat_mm.errors import UserError


def find(scope, **dataset):
    init_default_scope(scope)
    loader = dict(dataset={'pipeline': [], **dataset})
    return find_sources(Config(dict(default_scope=scope, train_dataloader=loader)), 'train')


def test_dataset_that_cannot_be_looked_into():
    kind = dict(type='MultiTaskDataset', ann_file='gone.json', metainfo={}, data_root='gone')
    assert find('mmpretrain', **kind) == []


@pytest.mark.parametrize(
    ('dataset', 'expected'),
    [
        (dict(type='BaseSegDataset', test_mode=True), 'classes` should be specified'),
        (
            dict(type='PascalVOCDataset', ann_file='gone.txt', data_root='gone'),
            ": a file or folder of PascalVOCDataset does not exist: {'data_root': 'gone'",
        ),
        (
            dict(
                type='CityscapesDataset',
                pipeline=[dict(type='RandomCrop', crop_size=(0, 64))],
            ),
            '.pipeline.0.crop_size is (0, 64): assert crop_size[0] > 0',
        ),
    ],
    ids=['no classes', 'no folder', 'value of a transform'],
)
def test_what_upstream_asserts(dataset, expected):
    with pytest.raises(UserError) as raised:
        find('mmseg', **dataset)
    assert str(raised.value).startswith('None: train_dataloader.dataset')
    assert expected in str(raised.value)
