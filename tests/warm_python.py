"""A Python that starts at once, forked from a process that has imported PyTorch and others.

As a script, this file is that process, a server; :func:`warm` starts it and writes a command that
other programs, too, can use in place of the interpreter. OpenMMLab and nat_mm are not imported
before the fork: a command imports them in its own order, with the hooks that Python installs at
startup.
"""

import array
import gc
import multiprocessing
import os
import pickle
import select
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

IMPORTED = (
    ('torch', 'torch._dynamo', 'torch.distributed.fsdp', 'torch.distributed.run', 'torchvision')
    + ('cv2', 'matplotlib.pyplot', 'pandas', 'pycocotools.coco', 'scipy.optimize', 'scipy.spatial')
    + ('rich.progress', 'shapely.geometry', 'setuptools', 'pkg_resources', 'pip._internal')
)
NOT_IMPORTED = ('mim', 'mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmseg', 'nat_mm')
CLIENT = """#!{python} -ISB
import array, os, pickle, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    streams = array.array('i', [0, 1, 2])
    server.sendmsg([b'.'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
    with server.makefile('rwb') as file:
        pickle.dump((sys.argv, os.getcwd(), dict(os.environ)), file)
        file.flush()
        status = file.read()
sys.exit(int(status or 1))
"""


@contextmanager
def warm(python: Path, folder: Path, environment: dict[str, str]) -> Iterator[Path]:
    """Yields a command that behaves like an interpreter.

    Args:
        python: The interpreter.
        folder: Folder that the command is written to.
        environment: Environment variables of the server, which the imports read.
    """
    address, command = folder / 'socket', folder / 'python'
    command.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    command.chmod(0o755)
    server = subprocess.Popen(
        [python, '-W', 'ignore', __file__, address],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,  # closes when this process ends, however it ends
        stdout=subprocess.PIPE,
    )
    with server:
        try:
            assert server.stdout.readline() == b'ready\n'
            yield command
        finally:
            # Closing its input is not enough: processes forked from this one may hold it open.
            server.terminate()


def preload(names: Iterable[str]) -> None:
    """Imports those modules that are installed, for processes forked from this one.

    From then on, the garbage collector ignores their objects. Otherwise each fork would scan them
    and thereby copy their memory.
    """
    gc.disable()
    for name in names:
        with suppress(ImportError):
            import_module(name)
    gc.freeze()
    gc.enable()


def serve(address: str) -> None:
    """Runs what each client sends in a fork, until standard input is closed."""
    preload(IMPORTED)
    assert not sys.modules.keys() & set(NOT_IMPORTED)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        print('ready', flush=True)
        while server in select.select([server, sys.stdin], [], [])[0]:
            client, _ = server.accept()
            if os.fork() == 0:
                server.close()
                answer(client)
            client.close()
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG) != (0, 0):
                    pass


def answer(client: socket.socket) -> None:
    """Runs what a client sent in another fork and answers with its exit code."""
    streams = array.array('i')
    size = socket.CMSG_SPACE(3 * streams.itemsize)
    _, [(_, _, numbers)], *_ = client.recvmsg(1, size)
    streams.frombytes(numbers[: 3 * streams.itemsize])
    with client.makefile('rb') as file:
        words, folder, environment = pickle.load(file)
    process = multiprocessing.get_context('fork').Process(
        target=run_for, args=(client, streams, words, folder, environment)
    )
    process.start()
    process.join()
    code = process.exitcode
    client.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def run_for(
    client: socket.socket,
    streams: array.array,
    words: list[str],
    folder: str,
    environment: dict[str, str],
) -> None:
    """Runs what a client sent; multiprocessing ends this process without freeing its memory."""
    client.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    run(words)


def run(words: list[str]) -> None:
    """Runs a command line as the interpreter does."""
    sys.executable, *words = words
    if words[0] == '-u':
        del words[0]
    if words[0] == '-c':
        sys.argv, sys.path[0] = ['-c', *words[2:]], ''
        exec(words[1], {'__name__': '__main__'})
    else:
        sys.path[0] = os.getcwd() if words[0] == '-m' else str(Path(words[0]).resolve().parent)
        run_python(words)


if __name__ == '__main__':
    from loading import run_python  # in the same folder as this file

    serve(sys.argv[1])
