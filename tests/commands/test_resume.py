"""Tests which checkpoint ``--resume`` takes and what it says about those it passes over."""

import os
import shutil

import pytest
import torch

from nat_mm.errors import UserError
from nat_mm.training.resume import find_last_checkpoint

STATE = {
    'state_dict': {'weight': torch.zeros(1000)},
    'meta': {'iter': 1},
    'optimizer': {},
    'param_schedulers': [],
    'message_hub': {},
}


@pytest.fixture
def save(tmp_path):
    """Writes a checkpoint that is newer than the previous ones."""

    def write(name, state=STATE):
        path = tmp_path / name
        torch.save(state, path)
        age = 1000 * len(os.listdir(tmp_path))
        os.utime(path, (age, age))
        return path

    return write


@pytest.fixture
def note(tmp_path):
    def write(content):
        path = tmp_path / 'last_checkpoint'
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)

    return write


def warnings(capsys):
    """Returns the warnings of the command, without mmengine's log."""
    lines = capsys.readouterr().err.splitlines()
    return [line for line in lines if line.startswith('warning: ')]


def found(work_dir):
    return os.path.basename(find_last_checkpoint(str(work_dir))[0])


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def test_the_noted_one_goes_first(save, note, tmp_path, capsys):
    save('epoch_1.pth')
    save('epoch_2.pth')
    note(f'/moved/away/{tmp_path.name}/epoch_1.pth'.encode())
    assert found(tmp_path) == 'epoch_1.pth'
    assert warnings(capsys) == []


def test_a_copy_of_a_work_dir_is_resumed_from_its_own_file(save, note, tmp_path):
    (tmp_path / 'copy').mkdir()
    original = save('epoch_1.pth')
    note(str(original).encode())
    shutil.copytree(tmp_path, tmp_path / 'second', ignore=shutil.ignore_patterns('copy', 'second'))
    source, _ = find_last_checkpoint(str(tmp_path / 'second'))
    assert source == str(tmp_path / 'second' / 'epoch_1.pth')


def test_the_checkpoint_comes_with_its_path(save, tmp_path):
    save('epoch_1.pth')
    _, checkpoint = find_last_checkpoint(str(tmp_path))
    assert checkpoint['meta'] == {'iter': 1}


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'it is empty'),
        (b'epoch_', 'it names epoch_, which does not exist'),
        (b'work_dirs/a/epoch_3.pth', 'it names work_dirs/a/epoch_3.pth, which does not exist'),
        (b'\x80\x00\xff', 'it is not text'),
        (b'epoch\x00_1.pth', 'it does not hold a path'),
        (b'one\ntwo', 'it does not hold a path'),
        (b'x' * 10**6, 'it does not hold a path'),
        (b'x' * 3000, 'which does not exist'),
        (None, 'it is not a file'),
    ],
    ids=['empty', 'cut', 'gone', 'binary', 'null', 'lines', 'huge', 'over-long', 'folder'],
)
def test_a_damaged_note_is_passed_over(content, reason, save, note, tmp_path, capsys):
    save('epoch_1.pth')
    save('epoch_2.pth')
    note(content)
    assert found(tmp_path) == 'epoch_2.pth'
    (line,) = warnings(capsys)
    assert len(line) < 400
    assert line.startswith(f'warning: passed over {tmp_path}/last_checkpoint: ')
    assert reason in line


def test_without_a_note_the_newest_is_taken(save, tmp_path):
    """Simulates a run killed after writing its first checkpoint but before last_checkpoint."""
    save('epoch_1.pth')
    save('epoch_2.pth')
    save('best_score_epoch_1.pth')
    (tmp_path / 'epoch_3.pth.unfinished').write_bytes(b'half')
    (tmp_path / 'epoch_9.pth').mkdir()
    assert found(tmp_path) == 'epoch_2.pth'


def test_those_that_cannot_be_used_are_named_with_the_reason(save, note, tmp_path, capsys):
    save('epoch_1.pth')
    save('weights.pth', {'state_dict': STATE['state_dict']})
    truncate(save('epoch_2.pth'))
    note(b'epoch_2.pth')
    assert found(tmp_path) == 'epoch_1.pth'
    damaged, weights = warnings(capsys)
    assert 'epoch_2.pth' in damaged
    assert 'truncated' in damaged
    expected = 'weights.pth: it has no meta, optimizer, param_schedulers, message_hub'
    assert weights == f'warning: passed over {tmp_path}/{expected}'


def test_none_that_can_be_used_is_a_mistake_that_recommends_none(save, note, tmp_path):
    truncate(save('epoch_1.pth'))
    note(b'epoch_1.pth')
    with pytest.raises(UserError, match='no checkpoint in .* can be used: .*epoch_1') as raised:
        find_last_checkpoint(str(tmp_path))
    assert '--resume' not in str(raised.value)
    assert '\n' not in str(raised.value)


def test_a_note_without_a_checkpoint_is_a_mistake(note, tmp_path):
    note(b'epoch_1.pth')
    with pytest.raises(UserError, match='names epoch_1.pth, which does not exist'):
        find_last_checkpoint(str(tmp_path))


def test_where_no_run_has_saved_there_is_none(save, tmp_path):
    """A job that is restarted repeatedly begins like this, even next to weights to start from."""
    assert find_last_checkpoint(str(tmp_path / 'nowhere')) is None
    assert find_last_checkpoint(str(tmp_path)) is None
    save('pretrained.pth', {'state_dict': STATE['state_dict']})
    assert find_last_checkpoint(str(tmp_path)) is None


def test_weights_are_enough_to_look_at_a_model(save, tmp_path):
    save('weights.pth', {'state_dict': STATE['state_dict']})
    assert find_last_checkpoint(str(tmp_path), resumable=False)[0] == str(tmp_path / 'weights.pth')
