"""Serves the page."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr
from fastapi import FastAPI

from nat_mm.inference.drawing import OPACITY
from nat_mm.inference.model import Model
from nat_mm.serving.connections import BoundedConnection
from nat_mm.serving.running import listen, local_address, served, wait_for
from nat_mm.web.bounds import FILE_MEGABYTES, PAGES
from nat_mm.web.guard import Guard
from nat_mm.web.handlers import Handlers
from nat_mm.web.models import PageModel
from nat_mm.web.offline import OfflinePage
from nat_mm.web.page import LOOK, build_page
from nat_mm.web.uploads import Uploads

POLL_SECONDS = 0.01
"""How often to look for new events. Gradio does it every millisecond, which takes a tenth of a core
even while nobody uses the page."""


@dataclass(frozen=True, eq=False)
class ServedPage:
    """A page that is being served.

    Attributes:
        local_url: Its address on this computer.
        handlers: Handlers of its events.
    """

    local_url: str
    handlers: Handlers
    _ended: threading.Event

    def wait(self) -> None:
        """Waits until the page is no longer served."""
        wait_for(self._ended)


class _PageConnection(BoundedConnection):
    crowd = b'Too many people are using this page right now. Please try again in a minute.\n'


@contextmanager
def serve(
    models: Mapping[str, Model], *, host: str, port: int, opacity: float = OPACITY
) -> Iterator[ServedPage]:
    """Serves the page inside the ``with`` block, from a separate thread.

    All files, including uploads, are in a temporary folder that is removed at the end.

    Args:
        models: Models to choose from, at least one, by their name on the page.
        host: Address to listen on.
        port: Port to listen on.
        opacity: Opacity of drawn masks and label maps, from 0 to 1.

    Yields:
        The page.

    Raises:
        UserError: The server cannot listen on this address or port.
    """
    with listen(host, port) as listener, TemporaryDirectory(prefix='nat_mm_web_') as folder:
        uploads, handed_out = Path(folder, 'uploads'), Path(folder, 'served')
        uploads.mkdir()
        handed_out.mkdir()
        # Gradio treats files in this folder as uploads, and serves those in the other in place.
        os.environ['GRADIO_TEMP_DIR'] = str(uploads)
        gr.set_static_paths(handed_out)
        page_models = [PageModel(name, model, opacity=opacity) for name, model in models.items()]
        handlers = Handlers(page_models, Uploads(uploads), handed_out)
        page = build_page(handlers)
        app = OfflinePage(Guard(_application(page), page, handlers.uploads, handed_out))
        with served(app, listener, connection=_PageConnection) as ended:
            try:
                yield ServedPage(local_address(listener), handlers, ended)
            finally:
                page.close(verbose=False)


def _application(page: gr.Blocks) -> FastAPI:
    """Creates Gradio's application, with everything disabled that the page does not need."""
    page.queue(api_open=False)
    page._queue.sleep_when_free = page._queue.progress_update_sleep_when_free = POLL_SECONDS
    page.state_session_capacity = PAGES
    # Only then does Gradio check that files in events really are uploads.
    page.has_launched = True
    return gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        path='/',
        **LOOK,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=FILE_MEGABYTES * 10**6,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
    )
