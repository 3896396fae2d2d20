"""Reads the body of a request up to the size that is accepted."""

from collections.abc import AsyncIterator, Callable

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive, Scope

FORM_BYTES = 10_000
"""Most bytes of a form besides its file."""


class CountedRequest(Request):
    """A request that tracks how much of it was read, and whether its sender is gone."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.size = 0
        self.is_whole = False
        self.is_gone = False

        async def count() -> Message:
            message = await receive()
            self.is_gone = message['type'] == 'http.disconnect'
            self.size += len(message.get('body', b''))
            self.is_whole = not message.get('more_body', False)
            return message

        super().__init__(scope, count)

    @property
    def declared_size(self) -> int:
        """Size of the body in bytes according to the header, or 0 if not given."""
        declared = self.headers.get('content-length', '0')
        return int(declared) if declared.isdecimal() else 0

    async def chunks(self, limit: int) -> AsyncIterator[bytes]:
        """Yields the body; raises an error if it has more than ``limit`` bytes."""
        async for chunk in self.stream():
            if self.size > limit:
                raise HTTPException(413, f'A request can have at most {limit} bytes.')
            yield chunk

    async def read_rest(self, limit: int) -> bool:
        """Reads and discards the rest: a client that is cut off would not receive the response.

        Args:
            limit: Longest body in bytes whose rest is read.

        Returns:
            Whether the body was read completely.
        """
        while not self.is_whole and max(self.size, self.declared_size) <= limit:
            await self.receive()
        return self.is_whole


async def read_form(request: CountedRequest, *, limit: int, take: Callable[[bytes], None]) -> None:
    """Reads the one file of a form, ``multipart/form-data``.

    Args:
        request: The request.
        limit: Longest body in bytes that is read.
        take: Receives the content of the file piece by piece.

    Raises:
        HTTPException: If the body is not such a form, is too long, or does not have exactly one
            file.
    """
    kind, options = parse_options_header(request.headers.get('content-type', ''))
    if kind != b'multipart/form-data' or b'boundary' not in options:
        raise HTTPException(400, 'A file is sent as multipart/form-data.')
    parts: list[None] = []
    callbacks = {
        'on_part_begin': lambda: parts.append(None),
        'on_part_data': lambda data, start, end: take(data[start:end]),
    }
    try:
        parser = MultipartParser(options[b'boundary'], callbacks)
        async for chunk in request.chunks(limit):
            parser.write(chunk)
    except FormParserError as error:
        raise HTTPException(400, 'This is not multipart/form-data.') from error
    if len(parts) != 1:
        raise HTTPException(400, 'One file is sent at a time.')
