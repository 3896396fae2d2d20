"""Runs uvicorn, inside of a ``with`` block."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from nat_mm.errors import UserError
from nat_mm.serving.connections import BoundedConnection


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: Address, of IPv4 or IPv6.
        port: Port; 0 takes a free one.

    Raises:
        UserError: Nothing can listen there.
    """
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UserError(f'cannot listen on {host}, port {port}: {error}') from error


def local_address(listener: socket.socket) -> str:
    """The address of a socket on this computer, as a browser takes it."""
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
    """Serves an application inside of the ``with`` block, from a thread of its own.

    Args:
        app: The application.
        listener: Where it is served.
        connection: What becomes of a connection.
        last_seconds: For how long requests that have begun may go on after the end of the block.

    Yields:
        What is set when the application is not served any more.

    Raises:
        UserError: The application does not start.
    """
    config = uvicorn.Config(
        app,
        http=connection,
        ws='none',
        log_level='warning',
        timeout_graceful_shutdown=last_seconds,
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
    """Waits for the end, or until a signal's handler raises.

    ``Thread.join`` would do so, too, but until Python 3.12 it takes a thread for ended when it is
    interrupted, and does not wait for it any more.
    """
    # Without a timeout signals would wait, too.
    while not ended.wait(timeout=1):
        pass
