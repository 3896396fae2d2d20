"""Tests how long a connection stays open for a client that reads slowly."""

import logging
import os
import resource
import socket
import threading
import time
from contextlib import suppress

import pytest

from nat_mm.errors import UserError
from nat_mm.serving import connections
from nat_mm.serving.connections import BoundedConnection
from nat_mm.serving.running import listen, served
from tests.processes import run_alone

SIZE = 400_000
BUFFER = 4096
REQUEST = b'GET /400000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n'


class Recorded(BoundedConnection):
    """Records what happens to the last connection.

    It resumes while much more is left than the operating system buffers, so that a client that
    sees it too late cannot have received everything.
    """

    def connection_made(self, transport):
        type(self).resumed, type(self).lost = threading.Event(), threading.Event()
        transport.set_write_buffer_limits(high=SIZE // 2, low=SIZE // 4)
        super().connection_made(transport)

    def resume_writing(self):
        super().resume_writing()
        self.resumed.set()

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.lost.set()


async def answer(scope, receive, send):
    if scope['type'] == 'http':
        size = int(scope['path'][1:])
        headers = [(b'content-length', str(size).encode())]
        await send({'type': 'http.response.start', 'status': 200, 'headers': headers})
        await send({'type': 'http.response.body', 'body': bytes(size)})


@pytest.fixture
def client():
    """A client whose operating system, like the server's, buffers little."""
    with listen('127.0.0.1', 0) as listener, socket.socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        client.settimeout(30)
        with served(answer, listener, connection=Recorded):
            client.connect(listener.getsockname())
            yield client


def receive_rest(client, *, size=65536, pause=0.0):
    """Returns the number of bytes that arrive before the connection is closed."""
    received = 0
    with suppress(ConnectionResetError):
        while content := client.recv(size):
            received += len(content)
            time.sleep(pause)
    return received


def test_end_that_is_not_read(client, monkeypatch):
    """What is left is too little to pause the server."""
    monkeypatch.setattr(connections, 'WRITE_SECONDS', 1)
    client.sendall(REQUEST)
    received = len(client.recv(1024))
    while not Recorded.resumed.is_set():
        received += len(client.recv(1024))
    assert Recorded.lost.wait(30)
    assert received + receive_rest(client) < SIZE


def test_answer_that_is_not_read_before_an_error_ends_the_connection(client, monkeypatch):
    """It is too little to pause the server, and no further request is expected."""
    monkeypatch.setattr(connections, 'WRITE_SECONDS', 0.3)
    client.sendall(b'GET /50000 HTTP/1.1\r\nHost: a\r\n\r\n')
    client.recv(1000, socket.MSG_WAITALL)  # the server has written everything
    client.sendall(b'nonsense\r\n\r\n')
    assert Recorded.lost.wait(30)
    assert receive_rest(client) < 50_000


def test_client_that_reads_slowly_gets_everything(client, monkeypatch):
    monkeypatch.setattr(connections, 'WRITE_SECONDS', 0.5)
    monkeypatch.setattr(connections, 'WRITE_BYTES', 10_000)
    client.sendall(REQUEST)
    started = time.monotonic()
    assert receive_rest(client, size=10_000, pause=0.02) > SIZE
    assert time.monotonic() - started > 2 * 0.5


def test_client_that_reads_too_slowly_is_hung_up_on(client, monkeypatch):
    monkeypatch.setattr(connections, 'WRITE_SECONDS', 0.5)
    client.sendall(REQUEST)
    assert receive_rest(client, size=1000, pause=0.02) < SIZE
    assert Recorded.lost.wait(30)


def test_half_a_request_does_not_delay_the_end(monkeypatch):
    monkeypatch.setattr(connections, 'LAST_SECONDS', 0.1)
    begun, received = threading.Event(), []

    async def app(scope, receive, send):
        while scope['type'] == 'http' and 'http.disconnect' not in received:
            received.append((await receive())['type'])
            begun.set()

    with listen('127.0.0.1', 0) as listener, socket.socket() as client:
        with served(app, listener, last_seconds=20):
            client.connect(listener.getsockname())
            client.sendall(b'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf')
            assert begun.wait(30)
        # Otherwise, the application would be canceled at the end of the 20 seconds.
        assert received == ['http.request', 'http.disconnect']


def limit_open_files(count):
    """Lets a process open only a few more files than it has, and then no more."""
    limit = len(os.listdir('/proc/self/fd')) + count
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def connect_often():
    """Returns what the asyncio of a server logs that gets more connections than it can open."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger('asyncio').addHandler(handler)
    with listen('127.0.0.1', 0) as listener:
        clients = [socket.socket() for _ in range(160)]
        limit_open_files(130)
        with served(answer, listener):
            for number, client in enumerate(clients):
                client.settimeout(30)
                client.connect(listener.getsockname())
                if number > 25:
                    assert client.recv(12) == b'HTTP/1.1 503'
    return messages


def test_few_open_files():
    assert run_alone(connect_often) == []


def count_without_files():
    limit_open_files(10)
    with pytest.raises(UserError, match=r'open files is too low for a server: .* ulimit -n'):
        connections.count_possible()


def test_no_open_files():
    run_alone(count_without_files)


def raise_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (70, hard))
    return connections.count_possible()


def test_limit_that_can_be_raised():
    assert run_alone(raise_limit) == connections.CONNECTIONS
