"""Tests that DDP and FSDP on two CPU processes compute the same as one with the whole batch.

They do so with a compiled backbone, too.
"""

import os

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import FlexibleRunner

from nat_mm.checkpoints import read_checkpoint
from nat_mm.training.launcher import prepare_distributed, prepare_strategy
from tests.processes import ranks, run_together

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='tests what happens on a CPU')

STRATEGIES = {
    'ddp': dict(type='DDPStrategy'),
    'fsdp': dict(
        type='FSDPStrategy',
        state_dict_cfg='full',
        model_wrapper=dict(
            type='MMFullyShardedDataParallel', auto_wrap_policy=dict(type='wrap_nat_layers')
        ),
    ),
}


@DATASETS.register_module()
class Noise(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return dict(inputs=torch.randn(3, 32, 40, generator=generator))


@MODELS.register_module()
class FeatureSquares(BaseModel):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = MODELS.build(backbone)

    def forward(self, inputs, mode='tensor'):
        features = self.backbone(inputs)
        # Normalized features always have the same sum of squares, so negative ones are dropped.
        return {'loss': sum(each.relu().square().mean() for each in features)}


def make_config(work_dir, strategy, *, batch_size, iterations, launcher, **options):
    return Config(
        dict(
            model=dict(
                type='FeatureSquares',
                backbone=dict(
                    type='DiNAT',
                    embed_dim=32,
                    depths=(2, 1),
                    num_heads=(1, 2),
                    kernel_size=3,
                    dilations=[[1, 2], [1]],
                    out_indices=(0, 1),
                    with_cp=True,
                ),
            ),
            runner_type='FlexibleRunner',
            strategy=strategy,
            launcher=launcher,
            work_dir=work_dir,
            train_dataloader=dict(
                dataset=dict(type='Noise'),
                batch_size=batch_size,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                collate_fn=dict(type='default_collate'),
            ),
            train_cfg=dict(by_epoch=False, max_iters=iterations),
            optim_wrapper=dict(
                type='OptimWrapper',
                optimizer=dict(type='AdamW', lr=0.01, betas=(0.9, 0.9), eps=1e-3),
                clip_grad=dict(max_norm=0.5),
            ),
            param_scheduler=[dict(type='LinearLR', start_factor=0.5, by_epoch=False, end=4)],
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
            randomness=dict(seed=0),
            default_scope='mmengine',
            **options,
        )
    )


def train(config):
    prepare_distributed(config)
    prepare_strategy(config)
    runner = FlexibleRunner.from_cfg(config)
    runner.train()
    return runner


def train_in_both_ways(work_dir, environment):
    os.environ.update(environment)
    options = dict(batch_size=2, launcher='pytorch')
    compiled = dict(custom_hooks=[dict(type='CompileBackbone', backend='eager')])
    ddp = make_config(f'{work_dir}/ddp', STRATEGIES['ddp'], iterations=4, **options, **compiled)
    runner = train(ddp)
    assert type(runner.model).__name__ == 'MMDistributedDataParallel'
    folder = f'{work_dir}/fsdp'
    train(make_config(folder, STRATEGIES['fsdp'], iterations=2, **options))
    options |= dict(resume=True, **compiled)
    runner = train(make_config(folder, STRATEGIES['fsdp'], iterations=4, **options))
    layer = runner.model.module.backbone.levels[0].blocks[0]
    assert type(layer).__name__ == 'FullyShardedDataParallel'
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """The checkpoints after four iterations of four images, by strategy."""
    folder = tmp_path_factory.mktemp('strategies')
    run_together(train_in_both_ways, [(str(folder), environment) for environment in ranks(2)])
    config = make_config(
        f'{folder}/one', STRATEGIES['fsdp'], batch_size=4, iterations=4, launcher='none'
    )
    assert type(train(config).model) is FeatureSquares
    paths = {name: folder / name / 'iter_4.pth' for name in ('ddp', 'fsdp', 'one')}
    return {name: read_checkpoint(str(path)) for name, path in paths.items()}


@pytest.mark.parametrize('strategy', ['ddp', 'fsdp'])
def test_weights_equal_those_of_one_process_and_one_batch(checkpoints, strategy):
    """FSDP was resumed halfway, and all runs clip gradients."""
    weights, expected = (checkpoints[name]['state_dict'] for name in (strategy, 'one'))
    torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-5)


def test_weights_were_trained(checkpoints, tmp_path):
    config = make_config(str(tmp_path), None, batch_size=4, iterations=1, launcher='none')
    config.optim_wrapper.optimizer.lr = 0.0
    before = train(config).model.state_dict()
    after = checkpoints['one']['state_dict']
    key = 'backbone.levels.0.blocks.0.attn.qkv.weight'
    assert (after[key] - before[key]).abs().max() > 1e-3


def test_checkpoints_of_fsdp_hold_the_whole_state_of_the_optimizer(checkpoints):
    one = checkpoints['one']['optimizer']
    names = list(checkpoints['one']['state_dict'])
    sharded = checkpoints['fsdp']['optimizer']['state']
    assert sharded.keys() == set(names)
    for index, name in enumerate(names):
        for moment in ('exp_avg', 'exp_avg_sq'):
            torch.testing.assert_close(
                sharded[name][moment], one['state'][index][moment], rtol=1e-3, atol=1e-6
            )
