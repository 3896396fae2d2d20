"""Passes only those requests that the page needs; Gradio alone serves and trusts far more."""

import functools
import json
import logging
import os
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import BlockFunction
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nat_mm.serving.requests import FORM_BYTES, CountedRequest, read_form
from nat_mm.web.bounds import (
    EVENT_KILOBYTES,
    EVENTS_PER_VISITOR,
    FILE_MEGABYTES,
    QUEUE_LENGTH,
    STREAMS,
)
from nat_mm.web.uploads import RefusalError, UploadError, Uploads, shown_name

_API = '/gradio_api'
_UPLOAD = f'{_API}/upload'
_ASSET = re.compile(
    r'/|/config|/theme\.css|/favicon\.ico|/(assets|static|svelte)(/[\w@-][\w.@-]{0,99})+', re.ASCII
)
_FILE = re.compile(rf'{_API}/file=(.+)', re.DOTALL)
_HEARTBEAT = re.compile(rf'{_API}/heartbeat/([^/]+)')
_SESSION = re.compile(r'[0-9A-Za-z-]{1,64}', re.ASCII)
"""The name that a browser gives its session; Gradio's page uses about 11 letters and digits."""

_LONGEST_TEXT = 300
_LARGEST_NUMBER = 2**53
_LARGEST_REQUEST = FILE_MEGABYTES * 10**6 + FORM_BYTES
"""In bytes: a file, and the rest of its form."""
_CHUNK_BYTES = 65_536
"""Bytes of a file that are in memory while a client receives it."""

_CROWD = 'Too many people are using this page right now. Please try again in a minute.'


class Guard:
    """ASGI application between browsers and Gradio.

    It handles files and uploads itself, and passes on events only in the form in which the page
    could have sent them, with the names of uploads replaced by their paths. Everything else in a
    request is dropped.

    Args:
        app: Gradio's application.
        page: The page.
        uploads: Where uploads are stored.
        served: The only folder from which browsers get files.
    """

    def __init__(self, app: ASGIApp, page: gr.Blocks, uploads: Uploads, served: Path) -> None:
        self._app = app
        self._queue = page._queue
        self._events = {
            number: event
            for number, event in page.fns.items()
            # Gradio itself triggers this event when a visitor has left.
            if not any(name == 'unload' for _, name in event.targets)
        }
        self._uploads = uploads
        self._served = served.resolve()
        self._streams = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':
            await self._app(scope, receive, send)
            return
        request = CountedRequest(scope, receive)
        try:
            response = await self._answer(request, send)
        except HTTPException as error:
            # In the form that Gradio's page shows.
            if request.url.path == _UPLOAD:
                response = PlainTextResponse(error.detail, error.status_code)
            else:
                response = JSONResponse({'detail': error.detail}, error.status_code)
            if not await request.read_rest(_LARGEST_REQUEST):
                response.headers['Connection'] = 'close'
        except ClientDisconnect:
            return
        if response is not None:
            await response(scope, receive, send)

    async def _answer(self, request: CountedRequest, send: Send) -> Response | None:
        """Answers a request; returns None if Gradio has answered it."""
        path = request.url.path
        if request.method in ('GET', 'HEAD'):
            if _ASSET.fullmatch(path):
                return await self._pass_on(request, send)
            if file := _FILE.fullmatch(path):
                return self._serve_file(file[1])
            if heartbeat := _HEARTBEAT.fullmatch(path):
                _check_session(heartbeat[1])
                return await self._stream(self._pass_on(request, send))
            if path == f'{_API}/upload_progress':
                # An upload ends before its page could show progress.
                return Response('data: {"msg": "done"}\n\n', media_type='text/event-stream')
            if path == f'{_API}/queue/data':
                session = _check_session(request.query_params.get('session_hash'))
                if session not in self._queue.pending_messages_per_session:
                    raise HTTPException(404, 'Nothing is on its way to this page.')
                return await self._stream(self._pass_on_results(request, send, session))
        elif request.method == 'POST':
            # Other pages that are open in the same browser must not use this one.
            if request.headers.get('sec-fetch-site', 'same-origin') not in ('same-origin', 'none'):
                raise HTTPException(403, 'This request comes from another page.')
            if path == _UPLOAD:
                return await self._receive_file(request)
            if path == f'{_API}/queue/join':
                event = self._read_event(await _read(request))
                self._check_crowd(event['session_hash'])
                return await self._pass_on(request, send, body=json.dumps(event).encode())
        raise HTTPException(404, 'There is nothing here.')

    async def _pass_on(
        self, request: CountedRequest, send: Send, *, body: bytes = b'', query: str = ''
    ) -> None:
        replaced = {
            b'content-length': str(len(body)).encode(),
            b'content-type': b'application/json',
        }
        dropped = (*replaced, b'transfer-encoding', b'range')
        headers = [pair for pair in request.scope['headers'] if pair[0] not in dropped]
        headers += replaced.items()
        messages = [{'type': 'http.request', 'body': body, 'more_body': False}]

        async def receive() -> Message:
            return messages.pop() if messages else await request.receive()

        scope = {**request.scope, 'headers': headers, 'query_string': query.encode()}
        await self._app(scope, receive, send)

    async def _pass_on_results(self, request: CountedRequest, send: Send, session: str) -> None:
        """Streams results to a page for as long as the page is open.

        Gradio ends this stream whenever no event of the page is waiting. An event that the page
        sends before it notices would never get a result, because the page relies on the old stream.
        """
        is_ended, has_begun = True, False

        async def send_on(message: Message) -> None:
            nonlocal is_ended, has_begun
            if message['type'] == 'http.response.start':
                if not has_begun:
                    await send(message)
                has_begun = True
            elif b'"close_stream"' in message.get('body', b''):
                is_ended = True
            elif message.get('body'):
                await send({**message, 'more_body': True})

        while is_ended and not request.is_gone and not self._queue.stopped:
            is_ended = False
            await self._pass_on(request, send_on, query=f'session_hash={session}')

    async def _stream(self, passing_on: Coroutine) -> None:
        if self._streams >= STREAMS:
            passing_on.close()
            raise HTTPException(503, _CROWD)
        self._streams += 1
        try:
            await passing_on
        except Exception as error:
            # Gradio raises if a visitor leaves before their results are ready.
            logging.getLogger(__name__).info('A stream of events ended early: %r', error)
        finally:
            self._streams -= 1

    def _serve_file(self, name: str) -> Response:
        try:
            path = Path(os.path.realpath(name))
            if not path.is_relative_to(self._served):
                raise FileNotFoundError(name)
            # Once opened, the file may be deleted when the next drawing replaces it.
            file = path.open('rb')
        except (OSError, ValueError) as error:
            raise HTTPException(404, 'There is no such file.') from error
        is_image = path.suffix == '.png'
        kind = 'inline' if is_image else 'attachment'
        return StreamingResponse(
            iter(functools.partial(file.read, _CHUNK_BYTES), b''),
            media_type='image/png' if is_image else 'application/json',
            headers={
                'Content-Length': str(os.fstat(file.fileno()).st_size),
                'Content-Disposition': f'{kind}; filename="{path.name}"',
            },
        )

    async def _receive_file(self, request: CountedRequest) -> Response:
        try:
            name = self._uploads.begin()
        except RefusalError as error:
            raise HTTPException(503, str(error)) from error
        take = functools.partial(self._uploads.grow, name)
        try:
            await read_form(request, limit=_LARGEST_REQUEST, take=take)
        except BaseException as error:
            self._uploads.remove(name)
            if isinstance(error, RefusalError):
                status = 413 if isinstance(error, UploadError) else 503
                raise HTTPException(status, str(error)) from error
            raise
        return JSONResponse([name])

    def _check_crowd(self, session: str) -> None:
        events = self._queue.pending_event_ids_session
        messages = self._queue.pending_messages_per_session
        if len(events) > 2 * len(messages) + 100:
            # Gradio drops the messages of the least recent visitors, but not their event lists.
            for other in [other for other in events if other not in messages]:
                del events[other]
        waiting = events.get(session, ())
        if len(self._queue) >= QUEUE_LENGTH or len(waiting) >= EVENTS_PER_VISITOR:
            raise HTTPException(503, _CROWD)

    def _read_event(self, body: bytes) -> dict[str, Any]:
        """Converts an event that a browser sent to the form that Gradio expects."""
        try:
            said = json.loads(body)
            event = self._events[said['fn_index']]
            target = said.get('trigger_id')
            if not isinstance(said['data'], list):
                raise TypeError(said['data'])
            data = [
                self._read_file(value) if isinstance(block, gr.File) else _check_scalar(value)
                for block, value in zip(event.inputs, said['data'], strict=True)
            ]
            return {
                'session_hash': _check_session(said['session_hash']),
                'fn_index': event._id,
                'trigger_id': target if target in _targets(event) else None,
                'event_data': {'index': _check_index(said.get('event_data'))},
                'data': data,
            }
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise HTTPException(400, 'This is not an event of this page.') from error

    def _read_file(self, value: Any) -> dict | None:
        """Returns Gradio's description of an uploaded file."""
        if value is None:
            return None
        path = self._uploads.path(value['path'])
        if path is None:
            raise HTTPException(410, 'This file is no longer kept here. Please drop it again.')
        name = shown_name(value.get('orig_name'))
        return {'path': str(path), 'orig_name': name, 'meta': {'_type': 'gradio.FileData'}}


async def _read(request: CountedRequest) -> bytes:
    return b''.join([chunk async for chunk in request.chunks(EVENT_KILOBYTES * 1000)])


def _targets(event: BlockFunction) -> list[int | None]:
    return [block for block, _ in event.targets]


def _check_session(value: Any) -> str:
    if not isinstance(value, str) or not _SESSION.fullmatch(value):
        raise HTTPException(400, 'The name of a session has up to 64 letters and digits.')
    return value


def _check_scalar(value: Any) -> Any:
    if isinstance(value, str):
        value.encode()
        valid = len(value) <= _LONGEST_TEXT
    else:
        valid = value is None or (
            isinstance(value, int | float) and -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER
        )
    if not valid:
        raise ValueError(value)
    return value


def _check_index(event_data: Any) -> Any:
    """Returns the selected index: a number, or the two numbers of a point."""
    index = (event_data or {}).get('index')
    if isinstance(index, list) and len(index) <= 2:
        return [_check_scalar(value) for value in index]
    return _check_scalar(index)
