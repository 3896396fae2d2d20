"""Tests that a work directory has one training run at a time, and one line for unusable ones."""

import os
import re
import time

import pytest
import torch
from torch import nn

from nat_mm.commands.train import ADVICE
from nat_mm.compat.whole_checkpoints import CheckpointWriteError
from nat_mm.errors import FileWriteError, UserError
from nat_mm.training import work_dir as module
from nat_mm.training.work_dir import LOCK, check_free_space, disk_mistakes, occupied_work_dir

FULL = OSError(28, 'No space left on device', 'scalars.json')


@pytest.fixture
def occupy(tmp_path):
    """Starts a process that occupies tmp_path until it is killed; returns its process id."""
    children = []

    def start():
        ready, tell = os.pipe()
        child = os.fork()
        if not child:
            with occupied_work_dir(str(tmp_path)):
                os.write(tell, b'.')
                time.sleep(60)
            os._exit(0)
        children.append(child)
        os.read(ready, 1)
        return child

    yield start
    for child in children:
        kill(child)


def kill(child):
    try:
        os.kill(child, 9)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_a_second_run_is_told_who_is_there(occupy, tmp_path):
    other = occupy()
    expected = rf'in use by a training run, process {other} on \S+ since \d.*--work-dir'
    with pytest.raises(UserError, match=expected), occupied_work_dir(str(tmp_path)):
        pass


def test_the_lock_of_a_killed_run_is_taken_over(occupy, tmp_path):
    kill(occupy())
    with occupied_work_dir(str(tmp_path)):
        assert f'process {os.getpid()} ' in (tmp_path / LOCK).read_text()


def test_a_worker_that_outlives_its_run_does_not_hold_the_lock(tmp_path):
    """A data loader's workers live on for seconds after a kill."""
    with occupied_work_dir(str(tmp_path)):
        worker = os.fork()
        if not worker:
            time.sleep(60)
            os._exit(0)
    try:
        second = os.fork()
        if not second:
            with occupied_work_dir(str(tmp_path)):
                os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) == 7
    finally:
        kill(worker)


def test_one_run_after_another(tmp_path):
    for _ in range(2):
        with occupied_work_dir(str(tmp_path / 'new' / 'folder')):
            pass


@pytest.fixture
def failing_run():
    """Writes what a run writes to its work directory before it fails."""

    def run(folder, *, starts):
        with occupied_work_dir(str(folder), config_file='configs/own.py') as start:
            log = folder / '20260101_000000'
            (log / 'vis_data').mkdir(parents=True)
            module.LOG_FOLDERS.add(log)
            (folder / '20260101_000001').mkdir()
            for name in ('own.py', '20260101_000000/run.log'):
                (folder / name).write_text('new')
            (folder / 'of_another').mkdir()
            (folder / 'of_another' / 'process').touch()
            if starts:
                start.note()
            raise ValueError

    return run


def test_a_run_that_never_starts_leaves_no_work_dir(tmp_path):
    with pytest.raises(KeyError), occupied_work_dir(str(tmp_path / 'new' / 'folder')):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_never_starts_leaves_other_files_alone(failing_run, tmp_path):
    before = {'own.py': 'old', LOCK: 'process 7\n', 'epoch_1.pth': ''}
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match='^$'):
        failing_run(tmp_path, starts=False)
    assert {each.name for each in tmp_path.iterdir()} == before.keys() | {'of_another'}
    assert {name: (tmp_path / name).read_text() for name in before} == before


@pytest.mark.parametrize('starts', [True, False])
def test_a_run_that_has_started_keeps_its_files(starts, failing_run, tmp_path):
    with pytest.raises(ValueError, match='^$'):
        failing_run(tmp_path / 'run', starts=starts)
    left = {each.name for each in (tmp_path / 'run').iterdir()}
    own = {LOCK, 'own.py', '20260101_000000', '20260101_000001'}
    assert left == {'of_another', *(own if starts else ())}


def test_a_run_that_is_stopped_keeps_its_files(tmp_path):
    with pytest.raises(SystemExit), occupied_work_dir(str(tmp_path / 'run')):
        raise SystemExit(143)
    assert (tmp_path / 'run' / LOCK).exists()


def test_a_lock_file_that_was_removed_is_not_locked(tmp_path, monkeypatch):
    """Else, two runs could hold locks on different files of the same name."""
    lock, calls = module.fcntl.lockf, []

    def lock_late(file, operation):
        if not calls:
            (tmp_path / LOCK).unlink()
        calls.append(operation)
        lock(file, operation)

    monkeypatch.setattr(module.fcntl, 'lockf', lock_late)
    with occupied_work_dir(str(tmp_path)):
        assert len(calls) == 2
        assert f'process {os.getpid()} ' in (tmp_path / LOCK).read_text()


def test_without_locks_there_is_a_warning(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise OSError(37, 'No locks available')

    monkeypatch.setattr(module.fcntl, 'lockf', fail)
    with occupied_work_dir(str(tmp_path)):
        assert 'cannot be locked (No locks available)' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('place', 'reason'),
    [
        ('file', 'file is a file'),
        ('file/below', 'file is a file'),
        ('/proc/a', '/proc/a: No such'),
        ('a' * 300, 'File name too long'),
    ],
    ids=['file', 'below a file', 'not writable', 'long name'],
)
def test_what_cannot_be_a_work_dir(place, reason, tmp_path):
    (tmp_path / 'file').write_text('precious')
    work_dir = str(tmp_path / place)
    expected = f'cannot use {re.escape(work_dir)} as work dir: .*{reason}'
    with pytest.raises(UserError, match=expected), occupied_work_dir(work_dir):
        pass
    assert (tmp_path / 'file').read_text() == 'precious'


def test_disk_that_is_full_from_the_start(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(module.os, 'write', fail)
    expected = f'cannot use .*/run as work dir: .*/run/{LOCK}: No space left on device$'
    with pytest.raises(UserError, match=expected), occupied_work_dir(str(tmp_path / 'run')):
        pass
    assert os.listdir(tmp_path) == []


def test_free_space(tmp_path, monkeypatch):
    model = nn.Linear(10, 10)
    check_free_space(model, str(tmp_path))
    usage = module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, 'disk_usage', lambda _: usage._replace(free=439))
    with pytest.raises(UserError, match='439 bytes are free, .* weights alone need 440'):
        check_free_space(model, str(tmp_path))


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (CheckpointWriteError(28, 'cannot write checkpoint a'), 'cannot write checkpoint a. '),
        (FULL, 'cannot write scalars.json: No space left on device. '),
        (OSError(28, 'No space left'), 'cannot write to run: No space left. '),
        (FileWriteError(13, 'Permission denied', 'a.csv'), 'cannot write a.csv: Perm.* denied. '),
    ],
    ids=['checkpoint', 'log', 'unnamed', 'other file'],
)
def test_full_disk(error, message):
    expected = f'^{message}Earlier checkpoints are intact'
    with pytest.raises(UserError, match=expected), disk_mistakes('run', advice=ADVICE):
        raise error


def test_other_faults_keep_their_traceback():
    with pytest.raises(FileNotFoundError), disk_mistakes('run', advice=ADVICE):
        torch.load('gone.pth')
