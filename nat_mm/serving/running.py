"""Runs uvicorn inside a ``with`` block."""

import functools
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from nat_mm.errors import UserError
from nat_mm.serving.connections import BoundedConnection, count_possible


def listen(host: str, port: int) -> socket.socket:
    """Creates a listening socket.

    Args:
        host: IPv4 or IPv6 address, or a name of this computer.
        port: Port; 0 for any free one.

    Raises:
        UserError: If listening there is not possible.
    """
    if not host:  # for the socket, this would mean every address, as 0.0.0.0 does
        raise UserError('the host to listen on is empty; 0.0.0.0 opens the port to the network')
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, TypeError) as error:  # TypeError: no host can have such a name
        raise UserError(f'cannot listen on {host}, port {port}: {error}') from error


def local_address(listener: socket.socket) -> str:
    """Returns the URL of a socket on this computer."""
    host, port, *_ = listener.getsockname()
    name = 'localhost' if host in ('0.0.0.0', '::') else f'[{host}]' if ':' in host else host
    return f'http://{name}:{port}/'


@contextmanager
def served(
    app: ASGIApp,
    listener: socket.socket,
    *,
    connection: type[BoundedConnection] = BoundedConnection,
    last_seconds: int = 1,
) -> Iterator[threading.Event]:
    """Serves an application in a separate thread inside the ``with`` block.

    Args:
        app: The application.
        listener: Socket on which it is served.
        connection: Class that handles connections.
        last_seconds: Seconds that pending requests may continue after the end of the block.

    Yields:
        An event that is set when the application is no longer served.

    Raises:
        UserError: If the application does not start, or too few files can be open.
    """
    most = count_possible()
    config = uvicorn.Config(
        app,
        http=functools.partial(connection, most=most),
        # As many are accepted at once, each of which is open until it is refused.
        backlog=max(16, most // 4),
        ws='none',
        log_level='warning',
        timeout_graceful_shutdown=last_seconds,
        # By default, uvicorn asks standard output, which is None if the shell closed it.
        use_colors=sys.stdout is not None and sys.stdout.isatty(),
    )
    server = uvicorn.Server(config)
    ended = threading.Event()

    def run() -> None:
        try:
            server.run([listener])
        finally:
            ended.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise UserError(f'cannot serve on {local_address(listener)}')
            time.sleep(0.01)
        yield ended
    finally:
        server.should_exit = True
        thread.join()


def wait_for(ended: threading.Event) -> None:
    """Waits for the end, or until a signal handler raises an exception.

    ``Thread.join`` would do so as well, but up to Python 3.12, once interrupted, it considers the
    thread finished and no longer waits for it.
    """
    # Without a timeout, signals would have to wait as well.
    while not ended.wait(timeout=1):
        pass
