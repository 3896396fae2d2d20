"""Tests that a training run killed at any step of writing a checkpoint has one to resume from.

A kill leaves what the work directory contains at that moment, so no process is killed here: the
work directory is copied before each file operation of mmengine's saving. tests.soak kills real
processes.
"""

import itertools
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from mmengine.fileio import BaseStorageBackend, FileClient
from mmengine.fileio.backends import registry_utils
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from nat_mm.checkpoints import read_checkpoint
from nat_mm.errors import UserError
from nat_mm.training.resume import find_last_checkpoint
from tests.soak.kills import undo_repair
from tests.training.tiny_run import TinyScore, train_tiny

SAVING = ('_save_checkpoint', '_save_best_checkpoint')
STEPS = {'open', 'write', 'flush', 'fsync', 'replace', 'remove', 'unlink', 'rmtree'}
RUNS = {
    'by iteration': dict(),
    'by epoch': dict(by_epoch=True),
    'two are kept': dict(checkpoint=dict(max_keep_ckpts=2)),
    'best': dict(validate=True, checkpoint=dict(save_best='score', rule='greater')),
}


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """Trains with the given options; returns copies of the work directory by the files in them.

    The copies are from the second save, before which there is one checkpoint. Of copies that differ
    only in the unfinished file, the last one is returned.
    """

    def train(**options):
        monkeypatch.setattr(TinyScore, 'rounds', 0)
        work_dir, found, steps = tmp_path / 'run', {}, itertools.count()

        def copy(_, event, function):
            if event != 'c_call' or function.__name__ not in STEPS:
                return
            sys.setprofile(None)
            copied = tmp_path / 'copies' / str(next(steps))
            shutil.copytree(work_dir, copied)
            files = sorted(path for path in copied.iterdir() if path.is_file())
            found[
                tuple(
                    path.name if 'unfinished' in path.name else f'{path.name} {path.stat().st_size}'
                    for path in files
                )
            ] = copied
            sys.setprofile(copy)

        for name in SAVING:
            monkeypatch.setattr(CheckpointHook, name, watch(getattr(CheckpointHook, name), copy))
        train_tiny(work_dir, **options)
        monkeypatch.undo()
        assert len(found) > 3
        return found

    return train


def watch(method, copy):
    calls = itertools.count(1)

    def watched(self, *arguments):
        sys.setprofile(copy if next(calls) == 2 else None)
        method(self, *arguments)
        sys.setprofile(None)

    return watched


def progress(checkpoint, options):
    return checkpoint['meta']['epoch' if options.get('by_epoch') else 'iter']


@pytest.mark.parametrize('options', RUNS.values(), ids=RUNS)
def test_killed_at_any_step(options, copies):
    for files, work_dir in copies(**options).items():
        source, checkpoint = find_last_checkpoint(str(work_dir))
        assert progress(checkpoint, options) >= 1, files
        assert (work_dir / 'last_checkpoint').read_text().endswith(Path(source).name), files
        best = list(work_dir.glob('best_*.pth'))
        assert best or not options.get('validate'), files
        for path in (*best, *work_dir.glob('*.pth')):
            assert 'state_dict' in read_checkpoint(str(path)), files


@pytest.mark.parametrize('options', RUNS.values(), ids=RUNS)
def test_what_a_killed_run_left_is_cleaned_up(options, copies):
    found = copies(**options)
    assert any('.unfinished' in name for files in found for name in files)
    for files, work_dir in found.items():
        source, _ = find_last_checkpoint(str(work_dir))
        train_tiny(work_dir, load_from=source, resume=True, **options)
        unit = 'epoch' if options.get('by_epoch') else 'iter'
        kept = options.get('checkpoint', {}).get('max_keep_ckpts', 1)
        left = {path.name for path in work_dir.iterdir() if not path.name.startswith('20')}
        best = {name for name in left if name.startswith('best_')}
        expected = {f'{unit}_{step}.pth' for step in range(4 - kept, 4)} | {'last_checkpoint'}
        assert left - best == expected, files


def test_mmengine_alone_loses_checkpoints(copies, monkeypatch):
    """If mmengine lost none, the tests above would miss the fault, or mmengine has fixed it."""
    undo_repair(monkeypatch.setattr)
    lost = 0
    for work_dir in copies().values():
        try:
            find_last_checkpoint(str(work_dir))
        except UserError:
            lost += 1
    assert lost > 0


def test_files_are_on_the_disk_before_others_rely_on_them(tmp_path, monkeypatch):
    """A power cut may lose what was not synced."""
    events = []
    for name in ('fsync', 'replace', 'remove'):
        call = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, name=name, call=call: (events.append(name), call(*a))[1]
        )
    train_tiny(tmp_path, end=2)
    written = ['fsync', 'replace', 'fsync']  # the file, its name, the folder
    assert events == [*written, *written, *written, *written, 'remove']


def test_remote_checkpoints_are_left_to_their_backend(tmp_path, monkeypatch):
    class Remote(BaseStorageBackend):
        stored = {}

        def get(self, filepath):
            return self.stored[filepath]

        def get_text(self, filepath, encoding='utf-8'):
            return self.stored[filepath].decode()

        def put(self, content, filepath):
            self.stored[filepath] = content

        def remove(self, filepath):
            del self.stored[filepath]

        def isfile(self, filepath):
            return filepath in self.stored

        def isdir(self, filepath):
            return False

        def join_path(self, *parts):
            return '/'.join(parts)

    monkeypatch.setitem(registry_utils.prefix_to_backends, 'remote', Remote)
    monkeypatch.setitem(FileClient._prefix_to_backends, 'remote', Remote)
    train_tiny(tmp_path / 'run', checkpoint=dict(out_dir='remote://bucket'))
    assert list(Remote.stored) == ['remote://bucket/run/iter_3.pth']
    assert (tmp_path / 'run' / 'last_checkpoint').read_text() == 'remote://bucket/run/iter_3.pth'


def test_full_disk_keeps_what_there_was(tmp_path, limit_file_size):
    model = dict(type='TinyModel', ballast=100_000)
    train_tiny(tmp_path, end=1, model=model)
    before = (tmp_path / 'iter_1.pth').read_bytes()
    limit_file_size(len(before) // 2)
    with pytest.raises(OSError, match=r'cannot write checkpoint .*iter_2.pth') as caught:
        train_tiny(tmp_path, load_from=str(tmp_path / 'iter_1.pth'), resume=True, model=model)
    needed, free = (int(number) for number in re.findall(r'(\d+) bytes', caught.value.strerror))
    assert len(before) * 0.9 < needed < len(before) * 1.5
    assert free > 0
    assert (tmp_path / 'iter_1.pth').read_bytes() == before
    assert not list(tmp_path.glob('*unfinished*'))
    assert find_last_checkpoint(str(tmp_path))[0] == str(tmp_path / 'iter_1.pth')


def test_resumed_runner_of_mmengine_reads_the_note(tmp_path):
    """Tests ``resume=True`` without a checkpoint, as mmdet's own command sets it."""
    train_tiny(tmp_path, end=1)
    runner = train_tiny(tmp_path, end=2, resume=True)
    assert isinstance(runner, Runner)
    assert runner.iter == 2
