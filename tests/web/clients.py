"""Clients of the page without a browser, some of them malicious."""

import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx

API = 'gradio_api'


class Client:
    """A visitor who talks to the server as the page's script does.

    Args:
        address: Address of the page.
        session: Name that the visitor's browser gives its session.
    """

    def __init__(self, address: str, session: Any = None) -> None:
        # Plain HTTP has nothing to verify; this saves 100 ms of reading certificates.
        self.http = httpx.Client(base_url=address, timeout=60, verify=False)
        self._streams, self._lines = ExitStack(), {}  # by session
        self.session = secrets.token_hex(6) if session is None else session
        config = self.http.get('config').json()
        names = {block['id']: block['props'].get('elem_id') for block in config['components']}
        self._events = {}
        for event in config['dependencies']:
            for block, kind in event['targets']:
                self._events.setdefault((names.get(block), kind), (event['id'], block))

    def __enter__(self) -> 'Client':
        return self

    def __exit__(self, *exception: object) -> None:
        self._streams.close()
        self.http.close()

    def upload(self, content: bytes, name: str = 'disc.png') -> httpx.Response:
        """Uploads a file."""
        return self.http.post(f'{API}/upload', files={'files': (name, content)})

    def join(self, block: str, kind: str, *data: Any, **said: Any) -> httpx.Response:
        """Sends an event.

        Args:
            block: ``elem_id`` of the element of the event.
            kind: Kind of event.
            *data: Values of the event's inputs.
            **said: Other fields of the request.
        """
        number, target = self._events[block, kind]
        event = {
            'data': data,
            'event_data': None,
            'fn_index': number,
            'trigger_id': target,
            'session_hash': self.session,
        }
        return self.http.post(f'{API}/queue/join', content=json.dumps({**event, **said}))

    def tell(self, block: str, kind: str, *data: Any, **said: Any) -> tuple[dict | None, list[str]]:
        """Sends an event and waits for its results.

        Returns:
            The new values of the event's outputs, and the messages to the visitor.
        """
        response = self.join(block, kind, *data, **said)
        assert response.status_code == 200, response.text
        event, told = response.json()['event_id'], []
        for message in self.messages():
            if message.get('event_id') != event:
                continue
            if message['msg'] == 'log':
                told.append(message['log'])
            elif message['msg'] == 'process_completed':
                assert message['success'], message
                return message['output']['data'], told
        raise AssertionError('the stream ended without a result')

    def messages(self) -> Iterator[dict]:
        """Yields what the server says about events, on one stream opened with the first event."""
        if self.session not in self._lines:
            path = f'{API}/queue/data?session_hash={self.session}'
            response = self._streams.enter_context(self.http.stream('GET', path))
            assert response.status_code == 200
            self._lines[self.session] = response.iter_lines()
        for line in self._lines[self.session]:
            if line:
                yield json.loads(line.removeprefix('data:'))

    def show(self, content: bytes, name: str = 'disc.png', model: Any = None) -> tuple:
        """Uploads an image and waits for its results."""
        (path,) = self.upload(content, name).json()
        file = {'path': path, 'orig_name': name, 'meta': {'_type': 'gradio.FileData'}}
        return self.tell('upload', 'upload', file, model, 0.3)

    def click(self, x: Any, y: Any, *layer: Any) -> tuple:
        """Clicks on the image and waits for the window of the token there."""
        layer = layer or (None, None, None)
        return self.tell('image', 'select', *layer, event_data={'index': [x, y]})


class SlowClient:
    """A connection that begins a request and never finishes it.

    Args:
        port: Port of the server.
        request: Beginning of the request.
    """

    def __init__(self, port: int, request: bytes) -> None:
        self._socket = socket.create_connection(('127.0.0.1', port))
        self._socket.settimeout(30)
        self.send(request)

    def send(self, content: bytes) -> None:
        """Sends more content if the server still listens."""
        try:
            self._socket.sendall(content)
        except OSError:
            self.close()

    def receive(self) -> bytes:
        """Returns everything that the server sends until it closes the connection."""
        answer = b''
        try:
            while content := self._socket.recv(65536):
                answer += content
        except ConnectionError:
            pass
        return answer

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()


def wait_until(condition: Callable[[], Any]) -> None:
    """Waits until a condition holds, at most a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
