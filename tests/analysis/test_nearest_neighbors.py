"""Tests the nearest-neighbor vote, and testing a classifier with it."""

import json
import math

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from nat_mm.analysis.nearest_neighbors import NearestNeighborTestLoop, vote_of_neighbors
from nat_mm.errors import UserError
from tests.model_zoo import ROOT

CONFIG = ROOT / 'configs/classification/heads/knn_nat_demo.py'


def test_vote_is_weighted_by_similarity():
    memory = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    scores = vote_of_neighbors(
        torch.tensor([[1.0, 0.0]]), memory, torch.tensor([2, 0, 0]), classes=4, temperature=0.5
    )
    votes = [math.exp(0 / 0.5) + math.exp(0.6 / 0.5), 0, math.exp(1 / 0.5), 0]
    assert scores[0].tolist() == pytest.approx([vote / sum(votes) for vote in votes])


def test_only_the_nearest_vote():
    memory = nn.functional.normalize(torch.tensor([[1.0, 0.1], [1.0, -0.2], [0.0, 1.0]]))
    scores = vote_of_neighbors(memory[:1], memory, torch.tensor([1, 0, 0]), classes=2, neighbors=1)
    assert scores.tolist() == [[0.0, 1.0]]


@pytest.fixture
def config(tmp_path):
    """A config for images in two colors, whose features differ whatever the weights are."""
    rng = np.random.default_rng(0)
    for part in ('train', 'val'):
        for name, color in (('dark', 40), ('light', 200)):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for index in range(3):
                image = rng.integers(color, color + 20, (64, 64, 3), np.uint8)
                cv2.imwrite(str(folder / f'{index}.png'), image)
    config = Config.fromfile(CONFIG)
    config.model.backbone.update(depths=(1, 1, 1, 1), kernel_size=3)
    config.model.head.num_classes = config.data_preprocessor.num_classes = 2
    config.test_evaluator.topk = (1,)
    for loader, part in (
        (config.test_dataloader, 'val'),
        (config.test_cfg.memory_dataloader, 'train'),
    ):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset = dict(
            type='CustomDataset',
            data_root=str(tmp_path / part),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
        )
    return config


@pytest.fixture
def checkpoint(config, tmp_path):
    from mmengine.registry import MODELS, init_default_scope

    init_default_scope(config.default_scope)
    torch.manual_seed(0)
    torch.save(MODELS.build(config.model).state_dict(), tmp_path / 'weights.pth')
    return tmp_path / 'weights.pth'


def test_config_is_tested(config, checkpoint, test, tmp_path):
    config.dump(tmp_path / 'knn.py')
    test([str(tmp_path / 'knn.py'), str(checkpoint), '--work-dir', str(tmp_path / 'run')])
    (results,) = tmp_path.glob('run/*/*.json')
    assert json.loads(results.read_text())['accuracy/top1'] == 100


@pytest.mark.parametrize(
    ('option', 'text'),
    [
        ({'neighbors': 0}, 'test_cfg.neighbors must be an integer of 1 or more, got 0'),
        ({'temperature': 0.0}, 'test_cfg.temperature must be above 0, got 0.0'),
    ],
    ids=['neighbors', 'temperature'],
)
def test_wrong_values(config, checkpoint, test, tmp_path, option, text):
    config.test_cfg.update(option)
    config.dump(tmp_path / 'knn.py')
    with pytest.raises(UserError, match=text):
        test([str(tmp_path / 'knn.py'), str(checkpoint), '--work-dir', str(tmp_path / 'run')])


def test_maps_are_no_features():
    class Model(nn.Module):
        head = object()

        def data_preprocessor(self, batch, training):
            return batch

        def extract_feat(self, inputs, stage):
            return torch.zeros(2, 8, 3, 3)

    loop = object.__new__(NearestNeighborTestLoop)
    loop._runner, loop.fp16 = type('Runner', (), {'model': Model()}), False
    with pytest.raises(UserError, match="maps of 8 channels.* neck=dict.type='GlobalAverage"):
        loop._extract({'inputs': None, 'data_samples': []})
