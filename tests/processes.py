"""Separate processes for tests, without the seconds that imports take."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import mmengine.config.config
import mmengine.runner.runner
import pytest
import torch

from nat_mm.ops.backends import cpu
from tests.loading import run_python

TIMEOUT = 900  # seconds, enough for the slowest test on a busy machine


def run_alone(function: Callable, *arguments: object) -> object:
    """Calls a function of a module in a process that has run nothing but imports.

    The process is forked from one that has imported nat_mm, mmdet and mmseg and that lives until
    the tests end. Its environment variables are those of the first call, except that Triton
    compiles kernels there instead of interpreting them.
    """
    return run_together(function, [arguments])[0]


def run_together(function: Callable, arguments_of_each: list[tuple]) -> list:
    """Calls a function in several such processes at once and returns all results."""
    context = start_fork_server()
    with ProcessPoolExecutor(
        len(arguments_of_each), mp_context=context, initializer=_prepare_fork
    ) as executor:
        calls = [executor.submit(function, *arguments) for arguments in arguments_of_each]
        return [call.result(TIMEOUT) for call in calls]


def start(function: Callable, *arguments: object) -> BaseProcess:
    """Calls a function in such a process without waiting for it to end."""
    process = start_fork_server().Process(target=function, args=arguments)
    process.start()
    return process


class ForkedPython:
    """A Python command in a forked process, with the interface of :class:`subprocess.Popen`.

    Args:
        command: An interpreter, then ``-m MODULE`` or a file, with arguments. The interpreter is
            ignored: it is always the current one.
        env: Environment variables of the process.
        stdout, stderr, text, errors: As for `subprocess.Popen`, but without a choice: all output is
            text in the attribute `stdout`.
    """

    def __init__(
        self,
        command: Sequence[object],
        *,
        env: dict[str, str],
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.STDOUT,
        text: bool = True,
        errors: str = 'replace',
    ) -> None:
        assert (stdout, stderr, text) == (subprocess.PIPE, subprocess.STDOUT, True)
        reader, writer = multiprocessing.Pipe(duplex=False)
        words = [str(word) for word in command[1:]]
        self._process = start(_run_command, words, dict(env), os.getcwd(), writer)
        self.stdout = os.fdopen(os.dup(reader.fileno()), errors=errors)
        reader.close()
        writer.close()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int:
        self._process.join(TIMEOUT)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _run_command(
    words: list[str], environment: dict[str, str], folder: str, output: Connection
) -> None:
    """Runs ``python WORDS`` in this process, which was forked for it."""
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    output.close()
    # Those of the parent process may have been made for a file, in which one can seek.
    sys.stdout, sys.stderr = (os.fdopen(each, 'w', 1, closefd=False) for each in (1, 2))
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup lets processes ignore it
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment.get('OMP_NUM_THREADS', os.cpu_count())))
    _prepare_fork()
    run_python(words)


def start_fork_server() -> ForkServerContext:
    """Starts the process that all others are forked from unless it is already running."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['tests.preloaded'])
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv('TRITON_INTERPRET', raising=False)
        forkserver.ensure_running()
    return context


def _prepare_fork() -> None:
    """Allows the kernel to use threads, as none had started before the fork; skips log details."""
    cpu._is_forked = False
    leave_out_log_details()


def leave_out_log_details() -> None:
    """Skips work that takes seconds and only serves the log of runs in this process.

    It formats the config and lists the compilers and libraries of the system.
    """
    mmengine.config.config.FormatCode = lambda text, **_: (text, False)
    mmengine.runner.runner.collect_env = dict


def write_stubs(folder: Path) -> None:
    """Writes modules that save new processes seconds if first on their ``sys.path``.

    mmengine formats each config with yapf only to log it. mmdet and mmpretrain import transformers
    if it is installed, as it is for our tests but not for our users.
    """
    (folder / 'yapf/yapflib').mkdir(parents=True)
    formatter = 'def FormatCode(text, **_):\n    return text, False\n'
    (folder / 'yapf/yapflib/yapf_api.py').write_text(formatter)
    (folder / 'transformers.py').write_text("raise ImportError('hidden by the tests')\n")


def free_port() -> int:
    """Returns a port of this computer that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def ranks(number: int) -> list[dict[str, str]]:
    """Returns the environment variables that torchrun gives to each of its processes."""
    port = str(free_port())
    return [
        {
            'RANK': str(rank),
            'LOCAL_RANK': str(rank),
            'WORLD_SIZE': str(number),
            'MASTER_ADDR': '127.0.0.1',
            'MASTER_PORT': port,
        }
        for rank in range(number)
    ]
