"""Serves the page."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr
from gradio.exceptions import ServerFailedToStartError
from starlette.middleware import Middleware

from nat_mm.cli.errors import CommandError
from nat_mm.cli.predictor import Predictor
from nat_mm.web.handlers import Handlers
from nat_mm.web.models import PageModel
from nat_mm.web.offline import OfflinePage
from nat_mm.web.page import build_page
from nat_mm.web.uploads import MEGABYTES

SESSIONS = 50
"""Visitors whose findings are kept in memory; those of the one longest away are dropped first."""


@contextmanager
def serve(predictors: Mapping[str, Predictor], *, host: str, port: int) -> Iterator[gr.Blocks]:
    """Serves the page inside the ``with`` block, from a thread of its own.

    All files, uploads too, lie in a temporary folder that is removed at the end.

    Args:
        predictors: Models to choose from, at least one, by what the page calls them.
        host: Address to listen on.
        port: Port to listen on.

    Yields:
        The page; its address is ``local_url``.

    Raises:
        CommandError: Nothing can listen there.
    """
    with TemporaryDirectory(prefix='nat_mm_web_') as folder:
        # Where Gradio puts uploads and what it serves.
        os.environ['GRADIO_TEMP_DIR'] = str(Path(folder, 'served'))
        models = [PageModel(name, predictor) for name, predictor in predictors.items()]
        page = build_page(Handlers(models, Path(folder)))
        try:
            page.queue(api_open=False).launch(
                server_name=host,
                server_port=port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                inbrowser=False,
                ssr_mode=False,
                pwa=False,
                enable_monitoring=False,
                max_file_size=MEGABYTES * 10**6,
                state_session_capacity=SESSIONS,
                app_kwargs={'middleware': [Middleware(OfflinePage)]},
            )
        except (OSError, ServerFailedToStartError) as error:
            raise CommandError(f'cannot listen on {host}, port {port}: {error}') from error
        try:
            yield page
        finally:
            page.close(verbose=False)
