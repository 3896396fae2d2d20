"""Processes of their own for tests, without the seconds that imports take."""

import multiprocessing
import socket
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import mmengine.config.config
import mmengine.runner.runner

TIMEOUT = 300  # seconds


def run_alone(function: Callable, *arguments: object) -> object:
    """Calls a function of a module in a process where nothing ran before but imports.

    It is forked from a process that stays until the tests end and has imported what nat_mm imports,
    but not nat_mm, whose kernel uses a single thread in forked processes. Its environment variables
    are those of the first call.
    """
    return run_together(function, [arguments])[0]


def run_together(function: Callable, arguments_of_each: list[tuple]) -> list:
    """Calls a function in several such processes at the same time; returns what each returned."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['mmcv.cnn', 'mmengine.runner', 'torchvision', 'triton'])
    with ProcessPoolExecutor(len(arguments_of_each), mp_context=context) as executor:
        calls = [executor.submit(function, *arguments) for arguments in arguments_of_each]
        return [call.result(TIMEOUT) for call in calls]


def leave_out_log_details() -> None:
    """Keeps runs in this process from spending seconds on what they only log.

    That is the formatted config, and what compilers and libraries the system has.
    """
    mmengine.config.config.FormatCode = lambda text, **_: (text, False)
    mmengine.runner.runner.collect_env = dict


def write_stubs(folder: Path) -> None:
    """Writes modules that save new processes seconds, for the beginning of their ``sys.path``.

    mmengine formats each config with yapf, only to log it. mmdet and mmpretrain import
    transformers where it is installed, as it is for our tests but not for our users.
    """
    (folder / 'yapf/yapflib').mkdir(parents=True)
    formatter = 'def FormatCode(text, **_):\n    return text, False\n'
    (folder / 'yapf/yapflib/yapf_api.py').write_text(formatter)
    (folder / 'transformers.py').write_text("raise ImportError('hidden by the tests')\n")


def ranks(number: int) -> list[dict[str, str]]:
    """The environment variables that torchrun gives to each of its processes."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
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
