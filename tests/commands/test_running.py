"""Tests how commands end."""

import pytest

from nat_mm.commands.running import run_command
from nat_mm.errors import CheckpointError, UserError


@pytest.mark.parametrize(
    ('error', 'code', 'line'),
    [
        (UserError('config.py:\n  lr is 0'), 2, 'error: config.py: lr is 0\n'),
        (CheckpointError('a\x1b.pth is empty'), 2, 'error: a\\x1b.pth is empty\n'),
        (KeyboardInterrupt(), 130, 'stopped by SIGINT\n'),
    ],
    ids=['user', 'checkpoint', 'Ctrl-C'],
)
def test_one_line(capsys, error, code, line):
    def command():
        raise error

    with pytest.raises(SystemExit) as raised:
        run_command(command)
    assert raised.value.code == code
    assert capsys.readouterr().err == line


def test_bugs_keep_their_traceback():
    def command():
        raise RuntimeError('a bug')

    with pytest.raises(RuntimeError, match='a bug'):
        run_command(command)
