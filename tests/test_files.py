"""Tests how files are written, and what is said if they cannot be."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nat_mm.errors import FileWriteError, UserError
from nat_mm.files import check_folder, whole_file, write_bytes, write_errors, write_image


def test_full_disk_keeps_the_earlier_file(
    tmp_path: Path, limit_file_size: Callable[[int], None]
) -> None:
    path = tmp_path / 'image.png'
    path.write_text('earlier')
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    limit_file_size(1000)
    with pytest.raises(FileWriteError) as raised:
        write_image(path, noise)
    assert str(raised.value) == f'cannot write {path}: File too large'
    assert raised.value.errno == errno.EFBIG
    assert [path.read_text(), *os.listdir(tmp_path)] == ['earlier', 'image.png']


def test_file_that_need_not_be_written(tmp_path: Path) -> None:
    path = tmp_path / 'a.png'
    path.write_text('earlier')
    with whole_file(path, optional=True):
        pass
    assert path.read_text() == 'earlier'
    expected = pytest.raises(FileWriteError, match=f'^cannot write {path}: No such file')
    with expected, whole_file(path):
        pass
    assert [path.read_text(), *os.listdir(tmp_path)] == ['earlier', 'a.png']


@pytest.mark.parametrize(
    ('name', 'reason'),
    [
        ('folder', 'Is a directory'),
        ('file/a.json', '{}/file is not a folder'),
        ('file/below/a.json', '{}/file is not a folder'),
        ('broken/a.json', '{}/broken is not a folder'),
        ('a' * 256, 'File name too long'),
    ],
)
def test_unusable_paths(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'file').touch()
    (tmp_path / 'broken').symlink_to(tmp_path / 'gone')
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(FileWriteError) as raised:
        write_bytes(tmp_path / name, b'content')
    assert str(raised.value) == f'cannot write {tmp_path / name}: {reason.format(tmp_path)}'
    assert sorted(os.listdir(tmp_path)) == before


def test_the_folder_is_named_rather_than_a_temporary_file_in_it(tmp_path: Path) -> None:
    with (
        pytest.raises(FileWriteError, match='^cannot write scenes: No space left$'),
        write_errors(Path('scenes')),
        whole_file(tmp_path / 'a.json'),
    ):
        raise OSError(errno.ENOSPC, 'No space left')


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'file').touch()
    check_folder(tmp_path / 'new' / 'newer', name='--out')
    for name in ('file', 'file/below'):
        with pytest.raises(UserError, match='^--out .*/file is a file, not a folder$'):
            check_folder(tmp_path / name, name='--out')
    monkeypatch.setattr(os, 'access', lambda path, mode: False)  # root may write everywhere
    with pytest.raises(UserError, match=f'^--out .*/new: {tmp_path} is not writable$'):
        check_folder(tmp_path / 'new', name='--out')
    assert os.listdir(tmp_path) == ['file']


def test_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stat_outside(path: str | Path, **options: bool) -> os.stat_result:
        if str(path).startswith(f'{tmp_path}/'):
            raise PermissionError(errno.EACCES, 'Permission denied', str(path))
        return stat(path, **options)

    stat = os.stat
    monkeypatch.setattr(os, 'stat', stat_outside)
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    with pytest.raises(UserError, match=f'^--out .*/new/newer: {tmp_path} is not writable$'):
        check_folder(tmp_path / 'new' / 'newer', name='--out')
