"""Tests that data loaders whose samples are of no use to a model are found."""

import pytest
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.registry import init_default_scope

from nat_mm.data.folders import find_folder_problems
from nat_mm.data.loaders import find_loader_problems
from nat_mm.data.sources import find_sources

pytest.importorskip('mmdet')


@pytest.mark.parametrize(
    ('sampler', 'is_found'),
    [
        ('DefaultSampler', True),
        (DefaultSampler, True),
        ('InfiniteSampler', False),
        ('mmengine.InfiniteSampler', False),
        (InfiniteSampler, False),
    ],
)
def test_dataset_smaller_than_a_batch(small_data, sampler, is_found):
    init_default_scope('mmdet')
    dataset = dict(
        type='CocoDataset',
        data_root=str(small_data),
        ann_file='coco/training.json',
        data_prefix=dict(img='images/training'),
        metainfo=dict(classes=('box', 'disc')),
        pipeline=[dict(type='LoadImageFromFile')],
    )
    loader = dict(batch_size=99, drop_last=True, dataset=dataset, sampler=dict(type=sampler))
    config = Config(dict(default_scope='mmdet', train_dataloader=loader))
    found = list(find_loader_problems(config, find_sources(config, 'train')))
    assert bool(found) is is_found


def test_dataset_that_cannot_be_loaded(tmp_path):
    pytest.importorskip('mmpretrain')
    init_default_scope('mmpretrain')
    dataset = dict(type='ImageNet', data_root=str(tmp_path / 'missing'), split='train')
    loader = dict(batch_size=99, drop_last=True, dataset=dataset)
    config = Config(dict(default_scope='mmpretrain', model={}, train_dataloader=loader))
    sources = find_sources(config, 'train')
    (problem,) = find_folder_problems(config, {'train': sources})
    assert 'does not exist' in problem.text
    assert not any('drop_last' in each.text for each in find_loader_problems(config, sources))
