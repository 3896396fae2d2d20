"""The page with three untrained models, and a browser to open it in."""

import logging
import shutil
import socket
import traceback
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Playwright,
    Request,
    expect,
    sync_playwright,
)

from nat_mm.inference.model import Model
from nat_mm.web.server import ServedPage, serve
from tests.loading import load_command
from tests.model_zoo import ROOT
from tests.processes import free_port
from tests.web.clients import Client

CONFIGS = ROOT / 'configs'
CLASSIFIER = f"""
_base_ = '{ROOT}/tests/small_classifier.py'
model = dict(head=dict(num_classes=3))
metainfo = dict(classes=('cat <b>', 'dog', 'fish'))
"""
PATIENCE = 60_000
"""Timeout in milliseconds, generous because other tests run at the same time."""

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')


@pytest.fixture(scope='session')
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """The config and checkpoint of an untrained model for each task whose toolbox is installed."""
    folder = tmp_path_factory.mktemp('models')
    (folder / 'classifier.py').write_text(CLASSIFIER)
    configs = {
        'detector': CONFIGS / 'demo/mask_rcnn_nat_demo.py',
        'segmentor': CONFIGS / 'demo/upernet_nat_demo.py',
        'classifier': folder / 'classifier.py',
    }
    if find_spec('mmpretrain') is None:
        del configs['classifier']
    found = {}
    for name, path in configs.items():
        config = Config.fromfile(path)
        init_default_scope(config.default_scope)
        if 'data_preprocessor' in config:
            config.model.data_preprocessor = config.data_preprocessor
        torch.manual_seed(0)
        model = MODELS.build(config.model)
        if name == 'detector':
            # All classes are about equally likely, and none is likely.
            model.roi_head.bbox_head.fc_cls.weight.data /= 100
        checkpoint = folder / f'{name}.pth'
        state = {'state_dict': model.state_dict(), 'meta': {'dataset_meta': dict(config.metainfo)}}
        torch.save(state, checkpoint)
        found[name] = (str(path), str(checkpoint))
    return found


@pytest.fixture(scope='session')
def models(sources: dict[str, tuple[str, str]]) -> dict[str, Model]:
    """The models as the command loads and names them."""
    tool = load_command('web_demo')
    options = [part for source in sources.values() for part in ('--model', *source)]
    return tool.load_models(tool.parse_arguments([*options, '--device', 'cpu']))


@pytest.fixture(scope='session')
def connections() -> Iterator[list[tuple]]:
    """The addresses that this process connects to from now on, and the names that it looks up."""
    addresses = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def recorded_connect(self: socket.socket, address: tuple) -> None:
        addresses.append(address)
        connect(self, address)

    def recorded_look_up(host: str, *arguments, **options) -> list:
        addresses.append((host,))
        return look_up(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, 'connect', recorded_connect)
        patch.setattr(socket, 'getaddrinfo', recorded_look_up)
        yield addresses


@pytest.fixture(scope='session')
def port() -> int:
    return free_port()


@pytest.fixture(scope='session')
def server(models: dict[str, Model], port: int, connections: list[tuple]) -> Iterator[ServedPage]:
    """The page, served from this process."""
    with pytest.MonkeyPatch.context() as patch:
        # This patch restores what serving sets.
        patch.setenv('GRADIO_TEMP_DIR', '')
        with serve(models, host='127.0.0.1', port=port) as page:
            yield page


@pytest.fixture
def faults(server: ServedPage, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The errors that the server logs: none, whatever it is asked for."""
    faults = []
    handler = logging.Handler(logging.ERROR)
    # Ignores tasks of the browser's driver that end with the tests.
    handler.addFilter(lambda record: 'playwright' not in record.getMessage())
    handler.emit = lambda record: faults.append(handler.format(record))
    loggers = [logging.getLogger(name) for name in ('uvicorn.error', 'asyncio')]
    for logger in loggers:
        logger.addHandler(handler)
    # This is how Gradio reports errors of a handler.
    monkeypatch.setattr(traceback, 'print_exc', lambda: faults.append(traceback.format_exc()))
    yield faults
    for logger in loggers:
        logger.removeHandler(handler)
    assert faults == []


@pytest.fixture
def client(server: ServedPage, faults: list[str]) -> Iterator[Client]:
    """A visitor without a browser."""
    with Client(server.local_url) as client:
        yield client


@pytest.fixture(scope='session')
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = _launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope='session')
def profiles(browser: Browser) -> list[BrowserContext]:
    """The browser's profiles; those of earlier tests have the page's scripts in their cache."""
    return []


@pytest.fixture
def visitors(
    browser: Browser, profiles: list[BrowserContext], server: ServedPage, faults: list[str]
) -> Iterator['Visitors']:
    """Opens the page for as many visitors as a test needs; none may contact another server."""
    visitors = Visitors(browser, profiles, server.local_url)
    yield visitors
    visitors.close()
    assert visitors.requests
    outside = [url for url in visitors.requests if not url.startswith((server.local_url, 'data:'))]
    assert outside == []


@pytest.fixture
def page(visitors: 'Visitors') -> Page:
    """The page, opened by one visitor."""
    return visitors.open()


class Visitors:
    """Opens the page, each time in another browser profile within one test.

    Attributes:
        requests: Addresses of everything that the pages requested.
    """

    def __init__(self, browser: Browser, profiles: list[BrowserContext], address: str) -> None:
        self._browser = browser
        self._profiles = profiles
        self._address = address
        self._pages: list[Page] = []
        self.requests: list[str] = []

    def open(self, *, width: int = 1280, height: int = 800) -> Page:
        if len(self._pages) == len(self._profiles):
            self._profiles.append(self._browser.new_context())
        profile = self._profiles[len(self._pages)]
        profile.on('request', self._note)
        page = profile.new_page()
        self._pages.append(page)
        page.set_viewport_size({'width': width, 'height': height})
        page.set_default_timeout(PATIENCE)
        page.goto(self._address)
        page.locator('#examples img').first.wait_for()
        page.locator('.hint >> visible=true').first.wait_for()
        return page

    def close(self) -> None:
        for page in self._pages:
            page.close()
            page.context.remove_listener('request', self._note)

    def _note(self, request: Request) -> None:
        self.requests.append(request.url)


def _launch(playwright: Playwright) -> Browser:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None and not Path(playwright.chromium.executable_path).exists():
        pytest.skip(f"no Chromium is installed: neither {', '.join(BROWSERS)} nor playwright's")
    return playwright.chromium.launch(executable_path=path, args=['--no-sandbox'])
