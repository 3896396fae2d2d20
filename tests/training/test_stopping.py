"""Tests that signals end a run with a checkpoint from which it resumes exactly."""

import errno
import io
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from mmengine.hooks import EMAHook

from nat_mm.training.resume import find_last_checkpoint
from nat_mm.training.stopping import SIGNALS, stop_on_signals
from tests.training.tiny_run import Calls, TinyData, build_tiny, train_tiny

CODES = {'SIGTERM': 143, 'SIGINT': 130, 'SIGHUP': 129}


@pytest.fixture(autouse=True)
def without_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def stop(tmp_path, monkeypatch, capsys):
    """Trains in tmp_path/run, sends a signal, and returns the one line on stderr."""

    def train(place, name='SIGTERM', **options):
        number = getattr(signal, name)
        functions = {place: lambda: os.kill(os.getpid(), number)}
        monkeypatch.setattr(Calls, 'functions', functions)
        runner = build_tiny(tmp_path / 'run', **options)
        capsys.readouterr()
        with pytest.raises(SystemExit) as raised, stop_on_signals(runner):
            runner.train()
        monkeypatch.setattr(Calls, 'functions', {})
        assert raised.value.code == CODES[name]
        (line,) = re.findall('^stopped by .*', capsys.readouterr().err, re.MULTILINE)
        return line

    return train


def resume(work_dir, **options):
    source, _ = find_last_checkpoint(str(work_dir))
    return train_tiny(work_dir, load_from=source, resume=True, **options)


def state(runner):
    """Returns everything that a training run computes."""
    wrapper = runner.optim_wrapper.state_dict()
    return {
        'weights': runner.model.state_dict(),
        'optimizer': wrapper['state'],
        'rates': [group['lr'] for group in wrapper['param_groups']],
        'iteration': runner.iter,
        'epoch': runner.epoch,
    }


def assert_same(runner, other):
    torch.testing.assert_close(state(runner), state(other), rtol=0, atol=0)


@pytest.mark.parametrize('name', CODES)
@pytest.mark.parametrize('done', [1, 2, 3, 4, 5])
@pytest.mark.parametrize('by_epoch', [True, False], ids=['by epoch', 'by iteration'])
def test_resumed_run_is_as_one_that_was_not_stopped(by_epoch, done, name, stop, tmp_path):
    """An epoch has 3 batches, so the second one ends with iteration 6."""
    options = dict(by_epoch=by_epoch, end=2 if by_epoch else 6, checkpoint=dict(interval=10))
    whole = train_tiny(tmp_path / 'whole', **options)
    line = stop(('after', done), name, **options)
    path = tmp_path / 'run' / f'iter_{done}.pth'
    expected = f'stopped by {name} after iteration {done}: saved {path}; continue with --resume'
    assert line == expected
    assert_same(resume(tmp_path / 'run', **options), whole)


@pytest.mark.parametrize('done', [2, 3, 4])
def test_checkpoint_within_an_epoch_is_resumed_there(done, tmp_path):
    """As after a kill, or with a signal that finds the checkpoint already written."""
    checkpoint = dict(by_epoch=False, interval=1, max_keep_ckpts=-1)
    options = dict(by_epoch=True, end=2, checkpoint=checkpoint)
    whole = train_tiny(tmp_path / 'run', **options)
    source = str(tmp_path / 'run' / f'iter_{done}.pth')
    resumed = train_tiny(tmp_path / 'resumed', load_from=source, resume=True, **options)
    assert_same(resumed, whole)


def test_the_epoch_goes_on_with_the_data_that_are_left(stop, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(TinyData, 'shown', shown)
    options = dict(by_epoch=True, end=1)
    stop(('after', 2), **options)
    first = shown.copy()
    shown.clear()
    resume(tmp_path / 'run', **options)
    assert shown[:2] == first[:2]  # loaded and skipped
    assert sorted(shown) == [0, 1, 2]


def test_an_epoch_of_another_length_begins_anew(stop, tmp_path):
    options = dict(by_epoch=True, end=1)
    stop(('after', 2), **options)
    loader = {'train_dataloader.dataset.length': 5}
    runner = resume(tmp_path / 'run', overrides=loader, **options)
    assert runner.iter == 2 + 5


@pytest.mark.parametrize('keep', [1, -1])
def test_checkpoints_of_interruptions_do_not_pile_up(keep, stop, tmp_path):
    options = dict(by_epoch=True, end=2, checkpoint=dict(max_keep_ckpts=keep))
    stop(('after', 1), **options)
    stop(('after', 2), load_from=str(tmp_path / 'run/iter_1.pth'), resume=True, **options)
    left = {path.name for path in (tmp_path / 'run').glob('*.pth')}
    assert left == ({'iter_2.pth'} if keep == 1 else {'iter_1.pth', 'iter_2.pth'})
    resume(tmp_path / 'run', **options)
    left = {path.name for path in (tmp_path / 'run').glob('*.pth')}
    all_of_them = {'iter_1.pth', 'iter_2.pth', 'epoch_1.pth', 'epoch_2.pth'}
    assert left == ({'epoch_2.pth'} if keep == 1 else all_of_them)


def test_nothing_is_saved_twice(stop, tmp_path):
    assert 'iteration 2: its checkpoint is written' in stop(('after', 2))
    assert [path.name for path in (tmp_path / 'run').glob('*.pth')] == ['iter_2.pth']


def test_during_validation(stop, tmp_path):
    line = stop(('validation', 3), by_epoch=True, end=2, validate=True)
    assert 'iteration 3: its checkpoint is written' in line
    assert find_last_checkpoint(str(tmp_path / 'run'))[0].endswith('epoch_1.pth')


def test_validation_with_averaged_weights_saves_the_trained_ones(stop, tmp_path):
    """EMAHook swaps the weights while it validates."""
    options = dict(
        by_epoch=True,
        end=2,
        validate=True,
        checkpoint=dict(interval=2),
        custom_hooks=[dict(type='Calls'), dict(type='EMAHook', momentum=0.5)],
    )
    whole = train_tiny(tmp_path / 'whole', **options)
    assert any(isinstance(hook, EMAHook) for hook in whole.hooks)
    assert 'saved' in stop(('validation', 3), **options)
    assert_same(resume(tmp_path / 'run', **options), whole)


def test_accumulated_gradients_are_used_first(stop, tmp_path):
    wrapper = dict(optimizer=dict(type='Adam', lr=0.1), accumulative_counts=4)
    assert 'after iteration 4' in stop(('after', 2), end=6, optim_wrapper=wrapper)


def test_without_a_checkpoint_hook(stop):
    hooks = dict(checkpoint=None)
    assert 'nothing was saved' in stop(('after', 2), default_hooks=hooks)


def test_handlers_are_put_back(stop):
    before = [signal.getsignal(number) for number in SIGNALS]
    stop(('after', 1))
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_second_signal_would_end_the_process_at_once(tmp_path, monkeypatch):
    """But not SIGHUP, which closed terminals send twice."""
    seen = {}

    def send_and_look():
        os.kill(os.getpid(), signal.SIGINT)
        seen.update((number, signal.getsignal(number)) for number in SIGNALS)

    monkeypatch.setattr(Calls, 'functions', {('before', 1): send_and_look})
    runner = build_tiny(tmp_path)
    with pytest.raises(SystemExit), stop_on_signals(runner):
        runner.train()
    assert seen == {
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGINT: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_IGN,
    }


def test_closed_terminal(tmp_path, monkeypatch):
    """A second SIGHUP follows, and nothing can be printed any more."""

    class Terminal(io.TextIOBase):
        def write(self, text):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def close():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(Calls, 'functions', {('after', 1): close})
    runner = build_tiny(tmp_path)
    monkeypatch.setattr(sys, 'stderr', Terminal())
    with pytest.raises(SystemExit) as raised, stop_on_signals(runner):
        runner.train()
    assert raised.value.code == 129
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_1.pth']


@pytest.fixture
def end_workers(tmp_path, monkeypatch, capsys):
    """Ends a run and its workers after some samples, and returns what it prints on stderr."""

    def train(after, **options):
        load = TinyData.__getitem__

        def load_from_dead_worker(self, index):
            if len(self.shown) == after:
                os.kill(os.getpid(), signal.SIGTERM)
                raise RuntimeError('DataLoader worker (pid(s) 7) exited unexpectedly')
            return load(self, index)

        monkeypatch.setattr(TinyData, 'shown', [])
        monkeypatch.setattr(TinyData, '__getitem__', load_from_dead_worker)
        runner = build_tiny(tmp_path / 'run', **options)
        with pytest.raises(SystemExit), stop_on_signals(runner):
            runner.train()
        monkeypatch.undo()
        return capsys.readouterr().err

    return train


def test_workers_that_the_signal_has_ended_are_no_fault(end_workers, tmp_path):
    """A scheduler signals all processes of a job, so the data loader loses its workers."""
    options = dict(by_epoch=True, end=1)
    assert 'after iteration 2: saved' in end_workers(after=2, **options)
    assert resume(tmp_path / 'run', **options).iter == 3


def test_nothing_is_saved_before_the_first_iteration(end_workers, tmp_path):
    expected = 'stopped by SIGTERM after iteration 0: there is nothing to save yet'
    assert expected in end_workers(after=0, by_epoch=True, end=1)
    assert not list((tmp_path / 'run').glob('*.pth'))


POOLS = """
import multiprocessing
from types import SimpleNamespace
from nat_mm.training.stopping import stop_on_signals

runner = SimpleNamespace(register_hook=lambda hook: None)
with stop_on_signals(runner):
    for _ in range(50):
        pool = multiprocessing.get_context('fork').Pool(4)  # as in mmdet's VOCMetric
        pool.starmap(pow, [(1, 2)] * 8)
        pool.close()
        del pool
print('done')
"""


def test_pools_end_while_a_run_trains():
    """A pool ends its workers by SIGTERM, right after it has started some of them."""
    command = [sys.executable, '-c', POOLS]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout == 'done\n'
