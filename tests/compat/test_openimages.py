"""Tests that the Open Images Challenge can be evaluated."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.datasets import OpenImagesChallengeDataset
from mmdet.evaluation import OpenImagesMetric
from mmengine.structures import InstanceData

from nat_mm.compat import openimages

BOXES = 'a.jpg\n1 1\n2\n1 0.1 0.2 0.5 0.6 0\n2 0.0 0.0 1.0 1.0 1\n'


def make_challenge(folder):
    """Writes an image's annotations, two objects of which the second is a group, and loads them."""
    (folder / 'boxes.txt').write_text(BOXES)
    (folder / 'labels.csv').write_text('/m/1,cat,1\n/m/2,dog,2\n')
    sizes = [{'filename': 'a.jpg', 'ori_shape': (100, 200, 3)}]
    (folder / 'sizes.pkl').write_bytes(pickle.dumps(sizes))
    np.save(folder / 'tree.npy', np.eye(3))
    return OpenImagesChallengeDataset(
        data_root=str(folder),
        data_prefix=dict(img=''),
        ann_file='boxes.txt',
        label_file='labels.csv',
        meta_file='sizes.pkl',
        hierarchy_file='tree.npy',
    )


def test_groups_of_objects(tmp_path):
    dataset = make_challenge(tmp_path)
    sample = dataset.get_data_info(0)
    assert [each['is_group_of'] for each in sample['instances']] == [False, True]
    boxes = torch.tensor([each['bbox'] for each in sample['instances']])
    found = InstanceData(bboxes=boxes, scores=torch.tensor([0.9, 0.8]), labels=torch.arange(2))
    metric = OpenImagesMetric()
    metric.dataset_meta = dataset.metainfo
    metric.process({}, [{**sample, 'pred_instances': found}])
    assert metric.evaluate(1)['openimages/AP50'] == 1


@pytest.mark.parametrize('key', ['is_group_of', 'is_group_ofs'])
def test_users_own_repair(key):
    class Dataset:
        def load_data_list(self):
            return [{'instances': [{key: True}]}]

    openimages.repair(SimpleNamespace(OpenImagesChallengeDataset=Dataset))
    ((instance,),) = (entry['instances'] for entry in Dataset().load_data_list())
    assert instance == {key: True, 'is_group_of': True}
