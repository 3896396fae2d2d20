"""Tests how commands end."""

import errno
import io
import os
import signal
import subprocess
import sys

import pytest

from nat_mm.commands.running import run_command
from nat_mm.errors import CheckpointError, FileWriteError, UserError


@pytest.mark.parametrize(
    ('error', 'code', 'line'),
    [
        (UserError('config.py:\n  lr is 0'), 2, 'error: config.py: lr is 0\n'),
        (CheckpointError('a\x1b.pth is empty'), 2, 'error: a\\x1b.pth is empty\n'),
        (
            OSError(errno.ENOSPC, 'No space left', 'a.json'),
            2,
            "error: [Errno 28] No space left: 'a.json'\n",
        ),
        (FileWriteError(errno.EACCES, 'Denied', 'a'), 2, 'error: cannot write a: Denied\n'),
        (PermissionError(errno.EACCES, 'Denied', 'a'), 2, "error: [Errno 13] Denied: 'a'\n"),
        (OSError(errno.ENAMETOOLONG, 'Too long', 'a'), 2, "error: [Errno 36] Too long: 'a'\n"),
        (KeyboardInterrupt(), 130, 'stopped by SIGINT\n'),
    ],
    ids=['user', 'checkpoint', 'full disk', 'not writable', 'not readable', 'long name', 'Ctrl-C'],
)
def test_one_line(capsys, error, code, line):
    def command():
        raise error

    with pytest.raises(SystemExit) as raised:
        run_command(command)
    assert raised.value.code == code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    'error',
    [RuntimeError('a bug'), FileNotFoundError(2, 'a bug'), PermissionError(1, 'a bug')],
)
def test_bugs_keep_their_traceback(error):
    def command():
        raise error

    with pytest.raises(type(error), match='a bug'):
        run_command(command)


@pytest.mark.parametrize('encoding', ['ascii', 'utf-8'])
def test_names_that_the_terminal_cannot_show(encoding, monkeypatch):
    with io.TextIOWrapper(io.BytesIO(), encoding) as stream:
        monkeypatch.setattr(sys, 'stdout', stream)
        run_command(lambda: print('caf\udce9 \u732b.png'))
        shown = '\u732b' if encoding == 'utf-8' else r'\u732b'
        assert stream.buffer.getvalue().decode(encoding) == f'caf\\udce9 {shown}.png\n'


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no device that is always full')
@pytest.mark.parametrize('statement', ['print("text")', 'logging.warning("text")'])
def test_output_to_a_full_disk(statement):
    command = f"""
import logging, sys
from nat_mm.commands.running import run_command
logging.basicConfig(stream=sys.stdout)
run_command(lambda: {statement})
"""
    with open('/dev/full', 'w') as full:
        run = subprocess.run(
            [sys.executable, '-c', command],
            env={**os.environ, 'PYTHONUNBUFFERED': ''},
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert (run.returncode, run.stderr.count(b'\n')) == (2, 1)
    assert b'No space left on device' in run.stderr


def test_second_signal_ends_a_command_at_once():
    command = """
import os, signal
from nat_mm.commands.running import exit_on_signals
exit_on_signals()
try:
    os.kill(os.getpid(), signal.SIGINT)
finally:
    os.kill(os.getpid(), signal.SIGTERM)
"""
    run = subprocess.run([sys.executable, '-c', command], stderr=subprocess.PIPE)
    assert (run.returncode, run.stderr) == (-signal.SIGTERM, b'')


def test_closed_terminal_does_not_end_the_command_at_once():
    """It sends SIGHUP twice."""
    command = """
import signal
from nat_mm.commands.running import exit_on_signals
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup lets processes ignore it
exit_on_signals()
try:
    signal.raise_signal(signal.SIGHUP)
finally:
    signal.raise_signal(signal.SIGHUP)
    print('cleaned up')
"""
    run = subprocess.run([sys.executable, '-c', command], stdout=subprocess.PIPE, text=True)
    assert (run.returncode, run.stdout) == (128 + signal.SIGHUP, 'cleaned up\n')


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGHUP'])
def test_signal_removes_temporary_files(tmp_path, name):
    """Forked processes, in contrast, end by default."""
    number = signal.Signals[name]
    command = f"""
import multiprocessing, signal, time
from pathlib import Path
from nat_mm.commands.running import run_command
from nat_mm.files import whole_file
def write():
    with whole_file(Path('result.txt')) as unfinished:
        unfinished.write_text('half')
        worker = multiprocessing.get_context('fork').Process(target=time.sleep, args=[100])
        worker.start()
        worker.terminate()
        worker.join()
        assert worker.exitcode == -signal.SIGTERM
        signal.raise_signal(signal.{name})
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup lets processes ignore it
run_command(write)
"""
    run = subprocess.run([sys.executable, '-c', command], cwd=tmp_path, stderr=subprocess.PIPE)
    assert (run.returncode, run.stderr) == (128 + number, b'')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGHUP'])
def test_ignored_signal(name):
    """As by ``nohup``."""
    command = f"""
import signal
from nat_mm.commands.running import run_command
signal.signal(signal.{name}, signal.SIG_IGN)
run_command(lambda: signal.raise_signal(signal.{name}))
"""
    run = subprocess.run([sys.executable, '-c', command], stderr=subprocess.PIPE)
    assert (run.returncode, run.stderr) == (0, b'')


def test_interrupt_of_a_background_job():
    command = """
import signal
from nat_mm.commands.running import exit_on_signals
signal.signal(signal.SIGINT, signal.SIG_IGN)
exit_on_signals()
signal.raise_signal(signal.SIGINT)
"""
    assert subprocess.run([sys.executable, '-c', command]).returncode == 128 + signal.SIGINT
