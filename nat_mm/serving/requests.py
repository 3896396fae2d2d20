"""Reads the body of a request, as much of it as is taken."""

from collections.abc import AsyncIterator, Callable

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive, Scope

FORM_BYTES = 10_000
"""What a form may have beside its file."""


class CountedRequest(Request):
    """A request of which is known how much of it was read, and whether its sender has gone."""

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
        """Bytes of the body as its header says, 0 if it does not."""
        declared = self.headers.get('content-length', '0')
        return int(declared) if declared.isdecimal() else 0

    async def chunks(self, limit: int) -> AsyncIterator[bytes]:
        """The body, refused where it is longer than so many bytes."""
        async for chunk in self.stream():
            if self.size > limit:
                raise HTTPException(413, f'A request can have at most {limit} bytes.')
            yield chunk

    async def read_rest(self, limit: int) -> bool:
        """Reads and forgets the rest: to a client that is cut short no answer gets through.

        Args:
            limit: Bytes of a body of which the rest is read.

        Returns:
            Whether that was worthwhile.
        """
        while not self.is_whole and max(self.size, self.declared_size) <= limit:
            await self.receive()
        return self.is_whole


async def read_form(request: CountedRequest, *, limit: int, take: Callable[[bytes], None]) -> None:
    """Reads the one file of a form, ``multipart/form-data``.

    Args:
        request: The request.
        limit: Bytes of the longest body that is read.
        take: Gets the content of the file, piece by piece.

    Raises:
        HTTPException: It is no such form, too long, or has not one file.
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
