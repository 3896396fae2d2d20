"""Tests that the shipped DDP and FSDP configs train, resume and are tested by the commands."""

import json
import os
from pathlib import Path

import pytest
import torch

from nat_mm.checkpoints import read_checkpoint
from nat_mm.demo import DatasetOptions, write_dataset
from tests.loading import load_command
from tests.processes import ranks, run_together

CONFIGS = Path(__file__).parents[2] / 'configs' / 'demo'
STRATEGIES = ('ddp', 'fsdp')

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='tests what happens on a CPU')


def train_and_resume(folder, environment):
    os.environ.update(environment)
    train = load_command('train').main
    for strategy in STRATEGIES:
        config = str(CONFIGS / f'upernet_nat_demo_{strategy}.py')
        arguments = [config, '--work-dir', f'{folder}/{strategy}', '--launcher', 'pytorch']
        options = ['default_hooks.checkpoint.interval=1', 'train_dataloader.batch_size=2']
        for iterations, more in ((1, ()), (2, ('--resume',))):
            ends = [f'train_cfg.max_iters={iterations}', 'train_cfg.val_interval=2']
            train([*arguments, *more, '--cfg-options', *options, *ends])
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The folder in which both were trained, in subfolders with their names."""
    folder = tmp_path_factory.mktemp('demo')
    options = DatasetOptions(train_scenes=4, val_scenes=2, image_size=64)
    write_dataset(folder / 'data', options, progress=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('NAT_MM_DEMO_DATA', str(folder / 'data'))
        data = {'NAT_MM_DEMO_DATA': str(folder / 'data')}
        run_together(train_and_resume, [(str(folder), {**each, **data}) for each in ranks(2)])
        yield folder


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_checkpoint_is_tested_by_one_process(test, folder, strategy, tmp_path):
    config = str(CONFIGS / f'upernet_nat_demo_{strategy}.py')
    checkpoint = folder / strategy / 'iter_2.pth'
    test([config, str(checkpoint), '--work-dir', str(tmp_path)])
    (tested,) = tmp_path.glob('*/*.json')
    assert 0 <= json.loads(tested.read_text())['mIoU'] <= 100


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_training_was_resumed(folder, strategy):
    logs = [path.read_text() for path in (folder / strategy).glob('*/*.log')]
    assert sum('Resume checkpoint' in log for log in logs) == 1
    assert read_checkpoint(str(folder / strategy / 'iter_2.pth'))['meta']['iter'] == 2
