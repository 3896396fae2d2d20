"""Keeps the page from asking any other server for anything."""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Gradio's HTML names servers of fonts, which no font of ours needs, and a script that only matters
# inside of other pages.
_OUTSIDE = re.compile(
    rb'<link\b[^>]*\bhref="https?://[^>]*>|<script\b[^>]*\bsrc="https?://[^>]*></script>'
    rb'|<meta\b[^>]*\bcontent="https?://[^>]*>'
)
# Browsers refuse whatever else were to come from elsewhere. Gradio's own page needs inline scripts
# and styles, and hands images on as data and blobs.
_POLICY = (
    b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    b"form-action 'self'; base-uri 'self'; object-src 'none'"
)


class OfflinePage:
    """ASGI middleware that takes outside addresses out of the HTML and forbids to fetch any.

    Args:
        app: The application that it is put around.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        start, body = None, b''

        async def send_cleaned(message: Message) -> None:
            nonlocal start, body
            if message['type'] == 'http.response.start':
                headers = dict(message['headers'])
                if not headers.get(b'content-type', b'').startswith(b'text/html'):
                    await send(message)
                else:
                    start = message
            elif start is None:
                await send(message)
            else:
                body += message.get('body', b'')
                if not message.get('more_body'):
                    body = _OUTSIDE.sub(b'', body)
                    headers = [pair for pair in start['headers'] if pair[0] != b'content-length']
                    headers.append((b'content-length', str(len(body)).encode()))
                    headers.append((b'content-security-policy', _POLICY))
                    await send({**start, 'headers': headers})
                    await send({'type': 'http.response.body', 'body': body})

        await self.app(scope, receive, send_cleaned)
