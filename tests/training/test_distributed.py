"""Tests that two CPU processes train one model."""

import os

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.config import Config
from mmengine.dist import all_gather, get_world_size
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner

from nat_mm.training.launcher import prepare_distributed
from tests.processes import ranks, run_together

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='tests what happens on a CPU')


@DATASETS.register_module()
class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dict(inputs=torch.full((3, 6, 6), float(index)))


@MODELS.register_module()
class OneConvolution(BaseModel):
    def __init__(self, norm_cfg):
        super().__init__()
        self.conv = ConvModule(3, 4, 3, norm_cfg=norm_cfg)

    def forward(self, inputs, mode='tensor'):
        return {'loss': (self.conv(torch.stack(inputs)) - 1).square().mean()}


def train(work_dir, norm, environment):
    os.environ.update(environment)
    config = Config(
        dict(
            model=dict(type='OneConvolution', norm_cfg=dict(type=norm)),
            work_dir=work_dir,
            train_dataloader=dict(
                dataset=dict(type='Numbers'),
                batch_size=2,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                collate_fn=dict(type='pseudo_collate'),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=2),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            default_scope='mmengine',
            launcher='pytorch',
        )
    )
    prepare_distributed(config)
    runner = Runner.from_cfg(config)
    runner.train()
    weights = all_gather(runner.model.module.conv.conv.weight.detach())
    assert get_world_size() == 2
    assert runner.iter == 4  # two epochs of 8 images, for two processes with batches of 2
    assert torch.equal(weights[0], weights[1])
    assert type(runner.model.module.conv.norm) is torch.nn.BatchNorm2d
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('norm', ['SyncBN', torch.nn.SyncBatchNorm], ids=['name', 'class'])
def test_two_processes_train(norm, tmp_path):
    run_together(train, [(str(tmp_path), norm, environment) for environment in ranks(2)])


def test_one_process_is_left_alone():
    config = Config({'launcher': 'none', 'model': {'norm_cfg': {'type': 'SyncBN'}}})
    prepare_distributed(config)
    assert config.model.norm_cfg.type == 'SyncBN'
    assert 'model_wrapper_cfg' not in config


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_other_launchers_need_a_gpu(launcher):
    with pytest.raises(ValueError, match=f"launcher must be 'pytorch' or 'none'.*{launcher}"):
        prepare_distributed(Config({'launcher': launcher, 'model': {}}))


def test_missing_torchrun_is_named(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match='RANK expected, but not set'):
        prepare_distributed(Config({'launcher': 'pytorch', 'model': {}}))
