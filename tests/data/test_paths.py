"""Tests that the paths of a config are checked where its pipelines read from them."""

import pytest
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope

from nat_mm.data.check import check_config
from nat_mm.data.mistakes import check_dataset
from nat_mm.data.paths import find_path_problems
from nat_mm.errors import UserError

IMAGES = dict(type='LoadImageFromFile')
LABELS = dict(type='LoadAnnotations')
REMOTE = dict(backend='petrel')


@pytest.fixture
def own_loader():
    """The name of a user's transform that loads images from a database."""

    class LoadFromDatabase(BaseTransform):
        def transform(self, results):
            return results

    TRANSFORMS.register_module(module=LoadFromDatabase)
    yield 'LoadFromDatabase'
    TRANSFORMS.module_dict.pop('LoadFromDatabase')


@pytest.fixture
def problems(tmp_path):
    """Returns what is wrong with the paths, before and after the dataset is built."""
    (tmp_path / 'list.txt').write_text('a\nb\n')
    (tmp_path / 'images').mkdir()
    init_default_scope('mmseg')

    def find(pipeline, *, images='images', labels='labels'):
        dataset = dict(
            type='BaseSegDataset',
            data_root=str(tmp_path),
            ann_file='list.txt',
            data_prefix=dict(img_path=images, seg_map_path=labels),
            metainfo=dict(classes=('road', 'car')),
            pipeline=pipeline,
        )
        config = Config(dict(default_scope='mmseg', test_dataloader=dict(dataset=dataset)))
        found = [each.text.partition(': ')[0] for each in find_path_problems(config, 'test')]
        try:
            check_dataset(config, DATASETS.build(dataset), 'test')
        except UserError as error:
            found.append(str(error).replace(f'{tmp_path}/', ''))
        return found

    return find


def test_label_files_count_only_if_they_are_loaded(problems, tmp_path):
    for name in 'ab':
        (tmp_path / 'images' / f'{name}.jpg').touch()
    assert problems([IMAGES]) == []
    missing = 'data_prefix.seg_map_path of the dataset does not exist'
    file = 'a file of the test dataset does not exist: labels/a.png'
    assert problems([IMAGES, LABELS]) == [missing, file]
    nested = dict(type='RandomChoice', transforms=[[LABELS], [LABELS]])
    assert problems([IMAGES, nested]) == [missing, file]


def test_images_of_a_loader_of_ones_own(own_loader, problems):
    assert problems([dict(type=own_loader)], images='key', labels='') == []
    missing = 'data_prefix.img_path of the dataset does not exist'
    file = 'a file of the test dataset does not exist: key/a.jpg'
    assert problems([IMAGES, dict(type=own_loader)], images='key', labels='') == [missing, file]


def test_files_elsewhere(problems):
    images, labels = (dict(each, backend_args=REMOTE) for each in (IMAGES, LABELS))
    assert problems([images, labels], images='bucket') == []
    assert problems([images, LABELS], images='bucket') == [
        'data_prefix.seg_map_path of the dataset does not exist',
        'a file of the test dataset does not exist: labels/a.png',
    ]


def test_config_without_training_data():
    config = Config(dict(default_scope='mmseg', model=dict(decode_head=dict())))
    texts = [each.text for each in check_config(config, splits=['train'], files=False).findings]
    assert not any('completely' in text for text in texts), texts
