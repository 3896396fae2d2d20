"""Keeps the page from requesting anything from other servers."""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Gradio's HTML refers to font servers, which the page's fonts do not need, and to a script that is
# only needed when the page is embedded in another one.
_OUTSIDE = re.compile(
    rb'<link\b[^>]*\bhref="https?://[^>]*>|<script\b[^>]*\bsrc="https?://[^>]*></script>'
    rb'|<meta\b[^>]*\bcontent="https?://[^>]*>'
)
# Makes browsers block anything else from other servers. Gradio's own page needs inline scripts and
# styles, and passes images as data and blobs.
_POLICY = (
    b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
    b"form-action 'self'; base-uri 'self'; object-src 'none'"
)


class OfflinePage:
    """ASGI middleware that removes external URLs from the HTML and blocks requests to any.

    Args:
        app: The wrapped application.
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
