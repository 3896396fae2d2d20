"""Tests programs whose output nobody reads to its end."""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nat_mm import output
from nat_mm.commands import main
from nat_mm.commands.running import run_command

PROGRAM = f"""
import runpy, sys
perhaps_unread = runpy.run_path({str(Path(output.__file__))!r})['perhaps_unread']
with perhaps_unread():
"""


BUFFERED = pytest.mark.parametrize('buffered', [True, False], ids=['at the end', 'line by line'])
"""Whether standard output is written when the program ends, or line by line."""


@BUFFERED
@pytest.mark.parametrize('module', ['nat_mm.compat', 'nat_mm.ops'])
def test_modules_that_only_print_succeed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, module: str, buffered: bool
) -> None:
    monkeypatch.setattr(sys, 'argv', [module])
    assert exit_code(lambda: runpy.run_module(module, run_name='__main__'), buffered) == 0
    assert capsys.readouterr().err == ''


@BUFFERED
@pytest.mark.parametrize(
    ('words', 'complete', 'interrupted'),
    [
        (['--help'], 0, 1),
        (['--version'], 0, 1),
        (['train', '--help'], 0, 0),  # argparse ignores that nobody reads the options
        (['nonsense'], 2, 2),  # goes to standard error
    ],
    ids=['--help', '--version', 'train --help', 'nonsense'],
)
def test_commands(
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    complete: int,
    interrupted: int,
    buffered: bool,
) -> None:
    monkeypatch.setattr(sys, 'argv', ['nat-mm', *words])
    assert exit_code(main.main, buffered) == (complete if buffered else interrupted)


def fail() -> None:
    raise BrokenPipeError('of a data loader')


def test_another_broken_pipe_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, 'w') as stream:
        monkeypatch.setattr(sys, 'stdout', stream)
        with pytest.raises(BrokenPipeError, match='data loader'):
            run_command(fail)
    os.close(reader)


def test_without_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'stdout', None)
    run_command(lambda: print('nowhere'))
    with pytest.raises(BrokenPipeError, match='data loader'):
        run_command(fail)


@pytest.mark.parametrize(
    ('statement', 'code'),
    [('print(1)', 0), ('print(1); sys.exit(3)', 3), ('print(1, flush=True); sys.exit(3)', 1)],
)
def test_python_says_nothing_at_exit(statement: str, code: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, 'PYTHONUNBUFFERED': ''}
    done = subprocess.run(
        [sys.executable, '-c', f'{PROGRAM}    {statement}'],
        env=environment,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (code, '')


def exit_code(program: Callable[[], object], buffered: bool) -> int:
    """Runs a program whose standard output is a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, 'w') as stream, pytest.MonkeyPatch.context() as patch:
        stream.reconfigure(line_buffering=not buffered)
        patch.setattr(sys, 'stdout', stream)
        try:
            program()
        except SystemExit as end:
            return end.code or 0
        return 0
