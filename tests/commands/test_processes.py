"""Tests commands as processes: exit codes, distributed runs, and mmsegmentation's own commands.

tests/packaging tests mmdet's own commands and the inferencers.
"""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.loading import load_command, name_for_mim
from tests.processes import free_port, ranks, run_together
from tests.warm_python import warm

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(environment, tmp_path):
    """Runs a command to its end in an empty folder."""

    def start(*command, **variables):
        return subprocess.run(
            [str(word) for word in command],
            cwd=tmp_path,
            env={**environment, 'PYTHON': sys.executable, **variables},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return start


@pytest.fixture(scope='module')
def python(environment, tmp_path_factory):
    """A quick stand-in for the interpreter, for tests that are not about its start."""
    with warm(sys.executable, tmp_path_factory.mktemp('warm'), environment) as python:
        yield python


def measured(work_dir):
    (path,) = Path(work_dir).glob('*/*.json')
    return json.loads(path.read_text())


def test_mistake_is_one_line_and_exit_code_2(run, python, configs, tmp_path):
    (tmp_path / 'half.pth').write_bytes(b'PK\x03\x04 half a checkpoint')
    result = run(python, ROOT / 'tools' / 'test.py', configs['detection'], 'half.pth')
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert 'half.pth' in line
    assert 'Traceback' not in result.stderr
    assert not (tmp_path / 'work_dirs').exists()


def run_as_a_rank(environment, arguments):
    os.environ.update(environment)
    load_command('test').main(arguments)
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(torch.cuda.is_available(), reason='tests gloo, which runs without a GPU')
def test_two_processes_train_and_test(run, python, configs, trained, test, tmp_path):
    """Training uses BN instead of SyncBN, and two processes measure what one does."""
    options = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2']
    result = run(
        *(ROOT / 'tools' / 'dist_train.sh', configs['segmentation'], '2'),
        *('--work-dir', 'trained', '--cfg-options', *options),
        PYTHON=str(python),
        PORT=str(free_port()),
    )
    assert result.returncode == 0, result.stderr
    (log,) = (tmp_path / 'trained').glob('*/*.log')
    assert 'Distributed launcher: pytorch' in log.read_text()
    (tmp_path / 'single').mkdir()
    checkpoint = tmp_path / 'trained' / 'iter_2.pth'
    arguments = [str(configs['segmentation']), str(checkpoint)]
    together = [*arguments, '--work-dir', str(tmp_path / 'tested'), '--launcher', 'pytorch']
    run_together(run_as_a_rank, [(rank, together) for rank in ranks(2)])
    test([*arguments, '--work-dir', str(tmp_path / 'single')])
    assert measured(tmp_path / 'tested')['mIoU'] == measured(tmp_path / 'single')['mIoU']


@pytest.mark.skipif(torch.cuda.is_available(), reason='tests gloo, which runs without a GPU')
def test_results_of_two_processes(configs, trained, environment, tmp_path):
    arguments = [
        *(str(configs['detection']), str(trained['detection']), '--launcher', 'pytorch'),
        *('--work-dir', str(tmp_path / 'tested'), '--show-dir', str(tmp_path / 'shown')),
        *('--out', str(tmp_path / 'out' / 'out.pkl')),
    ]
    run_together(run_as_a_rank, [(rank, arguments) for rank in ranks(2)])
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['out.pkl']
    images = [each['img_path'] for each in pickle.loads((tmp_path / 'out/out.pkl').read_bytes())]
    assert len(images) == 3
    drawings = sorted(path.name for path in (tmp_path / 'shown').rglob('*.*'))
    assert drawings == sorted(Path(image).name for image in images)


@pytest.mark.parametrize('script', ['dist_train', 'dist_test', 'slurm_train', 'slurm_test'])
def test_scripts_say_how_they_are_used(script, run):
    result = run(ROOT / 'tools' / f'{script}.sh', 'config.py')
    assert result.returncode == 2
    assert result.stderr.startswith('usage: ')


def test_script_tests_in_several_processes(run, tmp_path):
    """The script runs a fake Python that prints its arguments."""
    (tmp_path / 'python').write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / 'python').chmod(0o755)
    result = run(
        *(ROOT / 'tools' / 'dist_test.sh', 'config.py', 'model.pth', '2', '--tta'),
        PYTHON=str(tmp_path / 'python'),
        PORT='29501',
    )
    processes = '--nnodes 1 --node_rank 0 --nproc_per_node 2'
    assert f'-m torch.distributed.run {processes} --master_addr 127.0.0.1' in result.stdout
    assert '--master_port 29501 ' in result.stdout
    assert 'test.py config.py model.pth --launcher pytorch --tta\n' in result.stdout


def test_slurm_scripts_start_the_commands(run, tmp_path):
    """The scripts run a fake srun that prints its arguments."""
    (tmp_path / 'srun').write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / 'srun').chmod(0o755)
    path = f'{tmp_path}:/usr/bin:/bin'
    train = run(
        *(ROOT / 'tools' / 'slurm_train.sh', 'gpu', 'job', 'config.py', 'out', '--resume'),
        PATH=path,
        GPUS='2',
    )
    assert '--ntasks 2 --ntasks-per-node 2' in train.stdout
    assert 'train.py config.py --work-dir out --launcher slurm --resume\n' in train.stdout
    test = run(
        *(ROOT / 'tools' / 'slurm_test.sh', 'gpu', 'job', 'config.py', 'model.pth', '--tta'),
        PATH=path,
    )
    assert '--ntasks 8 --ntasks-per-node 8' in test.stdout
    assert 'test.py config.py model.pth --launcher slurm --tta\n' in test.stdout


def test_mmsegmentation_trains(run, python, configs):
    result = run(
        *(python, '-m', 'mim', 'train', name_for_mim('mmseg'), configs['segmentation']),
        *('--work-dir', 'trained', '--cfg-options'),
        *('train_cfg.max_iters=1', 'train_cfg.val_interval=1'),
    )
    assert result.returncode == 0, result.stderr
    assert 'Iter(train) [1/1]' in result.stdout + result.stderr


def test_mmsegmentation_tests(run, python, configs, trained, tmp_path):
    result = run(
        *(python, '-m', 'mim', 'test', name_for_mim('mmseg'), configs['segmentation']),
        *('--checkpoint', trained['segmentation'], '--work-dir', 'tested'),
    )
    assert result.returncode == 0, result.stderr
    assert 0 < measured(tmp_path / 'tested')['mIoU'] < 100
