"""Closes lingering connections, so that a slow client costs no more than a fast one."""

import asyncio
import os
import resource
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from nat_mm.errors import UserError

CONNECTIONS = 600
"""Most open connections; further ones get an error and are closed."""

_SPARE_FILES = 64
_FILES_PER_CONNECTION = 3
"""The connection, a file that it sends, and one that is refused at the same time."""

HEADER_SECONDS = 10
"""Time in which the header of a request must arrive."""

BODY_SECONDS = 60
"""Time in which the rest of a request, such as a file, must arrive."""

LAST_SECONDS = 5
"""Time in which the rest of a request must arrive once the server is to end."""

WRITE_SECONDS = 30
"""Time in which a client must read `WRITE_BYTES` of what waits for it, again and again."""

WRITE_BYTES = 100_000
"""What a client must at least read in that time, unless less is left."""

_FULL = (
    b'HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 60\r\n'
    b'Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b'
)
_PATIENCE = {h11.IDLE: HEADER_SECONDS, h11.SEND_BODY: BODY_SECONDS}
"""Time limits by what the client is to send next: a header, or the rest of a request."""


def count_possible() -> int:
    """Returns for how many connections, at most `CONNECTIONS`, this process can open files.

    The process's own limit on open files is raised if necessary and possible.

    Raises:
        UserError: For none.
    """
    opened = len(os.listdir('/proc/self/fd')) + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = opened + CONNECTIONS * _FILES_PER_CONNECTION
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        needed = soft
    possible = (needed - opened) // _FILES_PER_CONNECTION
    if possible < 1:
        raise UserError(
            f'the limit of {soft} open files is too low for a server: raise it with ulimit -n'
        )
    return possible


class BoundedConnection(H11Protocol):
    """uvicorn's connection with time limits, which uvicorn lacks.

    uvicorn waits forever for a request, and for a client that reads little or nothing.

    Args:
        most: Most connections for which the process can open files.

    Attributes:
        crowd: Message to a client if there are too many connections.
    """

    crowd = b'Too many clients are connected right now. Please try again in a minute.\n'

    _expected: object = None
    _reading: asyncio.TimerHandle | None = None
    _writing: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, most: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._most = most

    def connection_made(self, transport: asyncio.Transport) -> None:
        if len(self.connections) >= min(CONNECTIONS, self._most):
            transport.write(_FULL % (len(self.crowd), self.crowd))
            transport.close()
        super().connection_made(transport)
        self._bound_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._reading, self._writing):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        super().shutdown()
        if self.conn.their_state is h11.SEND_BODY:
            self._reading.cancel()
            self._reading = self.loop.call_later(LAST_SECONDS, self.transport.abort)

    def handle_events(self) -> None:
        super().handle_events()
        self._bound_reading()
        self._bound_last_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._bound_reading()
        self._bound_last_writing()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._bound_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._writing.cancel()
        self._bound_last_writing()

    def _bound_reading(self) -> None:
        expected = self.conn.their_state
        # The limit must not start over with each byte.
        if expected is self._expected:
            return
        self._expected = expected
        if self._reading is not None:
            self._reading.cancel()
        if expected in _PATIENCE:
            self._reading = self.loop.call_later(_PATIENCE[expected], self.transport.abort)

    def _bound_last_writing(self) -> None:
        # The connection stays open until everything is sent, even if nothing pauses any more.
        if self.transport.is_closing():
            self._bound_writing()

    def _bound_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
        waiting = self.transport.get_write_buffer_size()
        self._writing = self.loop.call_later(WRITE_SECONDS, self._check_writing, waiting)

    def _check_writing(self, before: int) -> None:
        # Nothing is added: the application waits, or has finished.
        if before - self.transport.get_write_buffer_size() < WRITE_BYTES:
            self.transport.abort()
        else:
            self._bound_writing()
