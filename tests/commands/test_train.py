"""Tests tools/train.py: training, resuming, and what its options change."""

import itertools
import json
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.optim import OptimWrapper

from nat_mm.checkpoints import read_checkpoint
from nat_mm.commands.train import apply_arguments, parse_arguments
from nat_mm.errors import UserError
from nat_mm.training.work_dir import occupied_work_dir
from tests.loading import load_command
from tests.processes import start

ROOT = Path(__file__).parents[2]


def logged(work_dir):
    """Returns what the newest run in a work directory logged at each training iteration."""
    newest = max(work_dir.glob('*/vis_data/scalars.json'))
    rows = [json.loads(line) for line in newest.read_text().splitlines()]
    return [row for row in rows if 'loss' in row]


def test_detector_is_trained(trained):
    rows = logged(trained['detection'].parent)
    assert [row['step'] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row['lr'] for row in rows] == pytest.approx([1e-5, 1e-4, 1e-4, 1e-5, 1e-5, 1e-5])
    assert rows[-1]['loss'] < rows[0]['loss']


def test_segmentor_is_trained(trained):
    rows = logged(trained['segmentation'].parent)
    assert [row['step'] for row in rows] == [1, 2, 3, 4, 5, 6]
    rates = [6e-4 * left / 5 for left in (5, 4, 3, 2, 1, 0)]
    assert [row['lr'] for row in rows] == pytest.approx(rates)
    assert rows[-1]['loss'] < rows[0]['loss']


def test_resume_continues_after_the_last_checkpoint(train, configs, trained, tmp_path):
    """Simulates a run killed between two checkpoints."""
    finished = trained['detection'].parent
    shutil.copy(finished / 'epoch_1.pth', tmp_path)
    (tmp_path / 'last_checkpoint').write_text('/gone/epoch_1.pth')
    train([str(configs['detection']), '--work-dir', str(tmp_path), '--resume'])
    whole, resumed = logged(finished), logged(tmp_path)
    assert [row['step'] for row in resumed] == [4, 5, 6]
    assert [row['lr'] for row in resumed] == [row['lr'] for row in whole[3:]]
    # The first batch after the checkpoint meets the same weights; only its random flips differ.
    assert resumed[0]['loss'] == pytest.approx(whole[3]['loss'], rel=0.1)


def test_resume_without_a_checkpoint_starts_from_load_from(train, configs, trained, tmp_path):
    options = ['train_cfg.max_iters=1', 'train_cfg.val_interval=1']
    arguments = [str(configs['segmentation']), '--work-dir', str(tmp_path), '--resume']
    train([*arguments, '--cfg-options', *options, f'load_from={trained["segmentation"]}'])
    (row,) = logged(tmp_path)
    assert row['step'] == 1
    assert row['lr'] == pytest.approx(6e-5)
    assert row['loss'] < logged(trained['segmentation'].parent)[0]['loss']


def test_killed_run_is_resumed(train, configs, tmp_path):
    """Kills a real process after its first checkpoint."""
    arguments = [str(configs['segmentation']), '--work-dir', str(tmp_path), '--cfg-options']
    endless = ['train_cfg.max_iters=100000', 'default_hooks.checkpoint.interval=2']
    process = start(train, [*arguments, *endless])
    try:
        deadline = time.monotonic() + 180
        while not (tmp_path / 'last_checkpoint').exists() and time.monotonic() < deadline:
            assert process.is_alive(), 'training ended by itself'
            time.sleep(0.2)
    finally:
        process.kill()
        process.join()
    last = Path((tmp_path / 'last_checkpoint').read_text())
    reached = read_checkpoint(str(last))['meta']['iter']
    ends = [f'train_cfg.max_iters={reached + 2}', 'train_cfg.val_interval=100000']
    time.sleep(1)  # logs are named by the second in which a run starts
    train([*arguments, *ends, '--resume'])
    assert [row['step'] for row in logged(tmp_path)] == [reached + 1, reached + 2]


def test_amp_trains_in_bf16_on_a_cpu(train, configs, trained, tmp_path):
    if torch.cuda.is_available():
        pytest.skip('the precision on a GPU is fp16')
    options = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2']
    arguments = [str(configs['segmentation']), '--work-dir', str(tmp_path), '--amp']
    train([*arguments, '--cfg-options', *options])
    whole = logged(trained['segmentation'].parent)
    losses = [row['loss'] for row in logged(tmp_path)]
    assert losses == pytest.approx([row['loss'] for row in whole[:2]], rel=0.05)
    assert losses != [row['loss'] for row in whole[:2]]


def test_amp_of_an_optimizer_wrapper_without_type(train, configs, tmp_path):
    """mmpretrain's schedules have none."""
    config = tmp_path / 'config.py'
    wrapper = "dict(_delete_=True, optimizer=dict(type='SGD', lr=0.1))"
    config.write_text(f"_base_ = '{configs['segmentation']}'\noptim_wrapper = {wrapper}\n")
    options = ['train_cfg.max_iters=1', 'train_cfg.val_interval=2']
    train([str(config), '--work-dir', str(tmp_path), '--amp', '--cfg-options', *options])
    (written,) = tmp_path.glob('*/vis_data/config.py')
    assert "type='AutocastOptimWrapper'" in written.read_text()


def test_amp_of_an_optimizer_wrapper_named_by_its_class():
    config = Config(dict(optim_wrapper=dict(type=OptimWrapper)))
    apply_arguments(config, parse_arguments(['config.py', '--amp']))
    assert config.optim_wrapper.type == 'AutocastOptimWrapper'


def test_run_with_a_constant_learning_rate_is_resumed(train, configs, tmp_path):
    arguments = [str(configs['segmentation']), '--work-dir', str(tmp_path), '--cfg-options']
    options = ['param_scheduler=None', 'train_cfg.val_interval=9']
    train([*arguments, *options, 'train_cfg.max_iters=1'])
    train([*arguments, *options, 'train_cfg.max_iters=2', '--resume'])
    logs = ''.join(path.read_text() for path in tmp_path.glob('*/*.log'))
    assert 'resumed epoch: 0, iter: 1' in logs


def test_cascade_trains_on_a_cpu_as_shipped(train, small_data, tmp_path):
    """The config keeps SyncBN and mixed precision; only depths, channels and data are smaller."""
    leaf = ROOT / 'configs' / 'detection' / 'nat' / 'cascade_mask_rcnn_nat_mini_3x_coco.py'
    data = [
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        f'train_dataloader.dataset.data_root={small_data}',
        'train_dataloader.dataset.ann_file=coco/training.json',
        'train_dataloader.dataset.data_prefix.img=images/training',
        'train_dataloader.dataset.metainfo.classes=box,disc',
        'train_dataloader.dataset.indices=1',
        # In the pipeline, augmentation is reduced to one small size.
        'train_dataloader.dataset.pipeline.3.transforms.0.0.scales=[(128,96)]',
        'train_dataloader.dataset.pipeline.3.transforms.1.0.scales=[(128,96)]',
        'train_dataloader.dataset.pipeline.3.transforms.1.2.scales=[(128,96)]',
        'val_dataloader=None',
        'val_cfg=None',
        'val_evaluator=None',
    ]
    model = [
        'model.backbone.depths=[1,1,1,1]',
        'model.backbone.init_cfg=None',
        'model.neck.out_channels=32',
        *(f'model.rpn_head.{side}_channels=32' for side in ('in', 'feat')),
        *(f'model.roi_head.{kind}_roi_extractor.out_channels=32' for kind in ('bbox', 'mask')),
        *(
            f'model.roi_head.bbox_head.{stage}.{name}={value}'
            for stage in range(3)
            for name, value in {
                'in_channels': 32,
                'conv_out_channels': 32,
                'fc_out_channels': 64,
                'num_classes': 2,
            }.items()
        ),
        *(f'model.roi_head.mask_head.{side}_channels=32' for side in ('in', 'conv_out')),
        'model.roi_head.mask_head.num_classes=2',
        *(f'model.train_cfg.rcnn.{stage}.sampler.num=4' for stage in range(3)),
    ]
    schedule = [
        'train_cfg.max_epochs=1',
        'default_hooks.logger.interval=1',
        # Skips a checkpoint of one gigabyte.
        'default_hooks.checkpoint.interval=2',
        'default_hooks.checkpoint.save_last=False',
    ]
    work_dir = ['--work-dir', str(tmp_path)]
    train([str(leaf), *work_dir, '--cfg-options', *data, *model, *schedule])
    (row,) = logged(tmp_path)
    assert 0 < row['loss'] < 100
    assert {'s0.loss_bbox', 's1.loss_bbox', 's2.loss_bbox', 's0.loss_mask'} <= row.keys()


def test_auto_scale_lr(train, configs, tmp_path):
    options = ['train_cfg.max_iters=1', 'train_cfg.val_interval=1']
    arguments = [str(configs['segmentation']), '--work-dir', str(tmp_path), '--auto-scale-lr']
    train([*arguments, '--cfg-options', *options])
    # Batches have 2 images, but the learning rate is for 16.
    assert logged(tmp_path)[0]['lr'] == pytest.approx(6e-5 * 2 / 16)


def test_work_dir_without_a_valid_name(train, configs, monkeypatch, tmp_path):
    folder = tmp_path / 'caf\udce9'
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=r'work dir .*/run: the name must be valid UTF-8'):
        train([str(configs['segmentation']), '--work-dir', 'run'])
    assert not list(folder.iterdir())


@pytest.mark.parametrize('runner', ['Runner', 'FlexibleRunner'])
def test_config_in_the_work_dir_is_kept(runner, train, configs, tmp_path):
    config = tmp_path / 'own.py'
    config.write_text(f"_base_ = '{configs['segmentation']}'  # a comment\n")
    text = config.read_text()
    options = [f'runner_type={runner}', 'train_cfg.max_iters=1', 'train_cfg.val_interval=100']
    train([str(config), '--work-dir', str(tmp_path), '--cfg-options', *options])
    assert config.read_text() == text
    (written,) = tmp_path.glob('*/own.py')
    assert Config.fromfile(written).train_cfg.max_iters == 1


@pytest.fixture
def dying_worker(train, configs, tmp_path, monkeypatch):
    """Trains until a worker that loads data dies, usually while the run waits for it."""

    def run(*, sample, stops_the_run=False):
        loaded = itertools.count()
        load = LoadImageFromFile.transform

        def load_or_die(self, results):
            if next(loaded) < sample:
                return load(self, results)
            if sample:
                time.sleep(1)
            if stops_the_run:
                os.kill(os.getppid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(LoadImageFromFile, 'transform', load_or_die)
        options = ['train_dataloader.num_workers=1', 'train_dataloader.persistent_workers=True']
        arguments = ['--no-check', '--work-dir', str(tmp_path), '--cfg-options', *options]
        train([str(configs['segmentation']), *arguments])

    return run


# Two batches of two are prefetched, while the loops are built.
def test_workers_that_a_signal_has_ended_are_no_fault(dying_worker, tmp_path):
    """A scheduler signals all processes of a job."""
    with pytest.raises(SystemExit, match='143'):
        dying_worker(sample=4, stops_the_run=True)
    assert list(tmp_path.glob('iter_*.pth'))


@pytest.mark.parametrize('sample', [0, 4])
def test_worker_that_is_killed(sample, dying_worker):
    killed = '(is killed by signal: Killed|exited unexpectedly)'
    expected = rf': a worker that loads data {killed}; it may have run out of memory'
    with pytest.raises(UserError, match=expected):
        dying_worker(sample=sample)


def test_work_dir_is_named_after_the_config(configs, monkeypatch, tmp_path):
    from nat_mm.config.reading import load_config

    monkeypatch.chdir(tmp_path)
    assert load_config(str(configs['detection'])).work_dir == 'work_dirs/small_detection'


@pytest.mark.parametrize(
    ('note', 'reason'),
    [
        pytest.param('', 'it is empty', id='empty note'),
        pytest.param('epoch_7.pth', 'it names epoch_7.pth, which does not exist', id='file gone'),
    ],
)
def test_resume_says_what_it_passed_over(note, reason, train, configs, trained, tmp_path, capsys):
    shutil.copy(trained['detection'].parent / 'epoch_1.pth', tmp_path)
    (tmp_path / 'last_checkpoint').write_text(note)
    train([str(configs['detection']), '--work-dir', str(tmp_path), '--resume'])
    assert f'passed over {tmp_path}/last_checkpoint: {reason}\n' in capsys.readouterr().err
    assert [row['step'] for row in logged(tmp_path)] == [4, 5, 6]


def test_second_run_in_a_work_dir_is_refused(train, configs, tmp_path):
    ready, tell = os.pipe()
    other = os.fork()
    if not other:
        with occupied_work_dir(str(tmp_path)):
            os.write(tell, b'.')
            time.sleep(300)
    os.read(ready, 1)
    try:
        with pytest.raises(UserError, match=f'in use by a training run, process {other} on '):
            train([str(configs['segmentation']), '--work-dir', str(tmp_path)])
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    assert os.listdir(tmp_path) == ['.training.lock']


def test_infinite_loss_is_one_line(train, configs, tmp_path):
    options = ['optim_wrapper.optimizer.lr=1e30', 'default_hooks.checkpoint.interval=1']
    arguments = [str(configs['segmentation']), '--work-dir', str(tmp_path), '--cfg-options']
    with pytest.raises(UserError, match=r'(loss\w* is (nan|inf)|is NaN or infinite)'):
        train([*arguments, *options])
    for path in tmp_path.glob('*.pth'):
        weights = read_checkpoint(str(path))['state_dict'].values()
        assert all(weight.isfinite().all() for weight in weights)


def test_full_disk_is_one_line(train, configs, tmp_path):
    """The log fits, but the second checkpoint does not."""
    options = ['default_hooks.checkpoint.interval=1', 'default_hooks.checkpoint.max_keep_ckpts=1']
    ends = ['train_cfg.max_iters=1', 'train_cfg.val_interval=100']
    arguments = [str(configs['segmentation']), '--work-dir', str(tmp_path), '--cfg-options']
    train([*arguments, *options, *ends])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, hard))
    try:
        with pytest.raises(UserError, match=r'cannot write checkpoint .*/iter_2.pth: .* needed'):
            train([*arguments, *options, 'train_cfg.max_iters=3', '--resume'])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.glob('*.pth*')] == ['iter_1.pth']


def test_seed_of_the_resumed_run_shuffles_its_data(train, configs, tmp_path, monkeypatch):
    """The config has no seed, so a run draws one."""
    config = tmp_path / 'unseeded.py'
    config.write_text(f"_base_ = '{configs['segmentation']}'\nrandomness = dict(seed=None)\n")
    ends = 'train_cfg.max_iters={} train_cfg.val_interval=100 default_hooks.checkpoint.interval=1'
    arguments = [str(config), '--work-dir', str(tmp_path / 'run')]
    train([*arguments, '--cfg-options', *ends.format(1).split()])
    train([*arguments, '--resume', '--cfg-options', *ends.format(2).split()])
    seeds = [
        read_checkpoint(str(tmp_path / 'run' / f'iter_{number}.pth'))['meta']['seed']
        for number in (1, 2)
    ]
    assert seeds[0] == seeds[1]


@pytest.mark.parametrize('seed', ['x', -1, 10**18, 1.5, [1]], ids=str)
def test_seed_that_is_none_is_one_line(seed):
    config = Config({'load_from': 'wrong.pth'})
    with pytest.raises(UserError, match=r'cannot resume from wrong\.pth: its seed must be'):
        load_command('train').keep_order_of_data(config, {'meta': {'seed': seed}})
