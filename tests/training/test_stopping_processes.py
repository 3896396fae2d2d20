"""Tests that processes that train one model stop at the same iteration, whichever is signaled."""

import os
import signal
from pathlib import Path

import mmengine.runner
import pytest
import torch
from mmengine.runner import FlexibleRunner, Runner

from nat_mm.training.launcher import prepare_distributed, prepare_strategy
from nat_mm.training.resume import find_last_checkpoint
from nat_mm.training.stopping import stop_on_signals
from tests.processes import ranks, run_together
from tests.training.tiny_run import Calls, tiny_config

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason='tests what happens on a CPU')

RUNNERS = {
    'Runner': dict(),
    'FlexibleRunner': dict(runner_type='FlexibleRunner', strategy=dict(type='DDPStrategy')),
}


def train_all(folder, environment):
    os.environ.update(environment)
    # Here mmengine was imported before nat_mm, as by the commands of mmdet and mmseg.
    for module in (mmengine.runner, mmengine.runner.runner, mmengine.runner.checkpoint):
        assert hasattr(module.save_checkpoint, '__wrapped__')
    results = {name: train(f'{folder}/{name}', options) for name, options in RUNNERS.items()}
    torch.distributed.destroy_process_group()
    return results


def train(work_dir, options):
    """Sends a signal to the second process during its second iteration, then trains to the end.

    Returns:
        The exit code, the iterations that were done by then, and those at the end.
    """
    options = dict(options, launcher='pytorch', end=6, checkpoint=dict(interval=100))
    if os.environ['RANK'] == '1':
        Calls.functions = {('before', 1): lambda: os.kill(os.getpid(), signal.SIGTERM)}
    runner = build(work_dir, options)
    try:
        with stop_on_signals(runner):
            runner.train()
        code = 0
    except SystemExit as error:
        code = error.code
    torch.distributed.barrier()
    Calls.functions = {}
    source, checkpoint = find_last_checkpoint(work_dir)
    resumed = build(work_dir, dict(options, load_from=source, resume=True))
    with stop_on_signals(resumed):
        resumed.train()
    return code, checkpoint['meta']['iter'], resumed.iter


def build(work_dir, options):
    config = tiny_config(work_dir, **options)
    prepare_distributed(config)
    prepare_strategy(config)
    runner_class = {'FlexibleRunner': FlexibleRunner}.get(config.get('runner_type'), Runner)
    return runner_class.from_cfg(config)


def test_all_stop_with_one_checkpoint(tmp_path):
    results = run_together(train_all, [(str(tmp_path), environment) for environment in ranks(2)])
    # The signal comes in iteration 2, and all processes know of it in iteration 3.
    assert results == [dict.fromkeys(RUNNERS, (143, 3, 6))] * 2
    for name in RUNNERS:
        assert [path.name for path in Path(tmp_path, name).glob('*.pth')] == ['iter_6.pth']
