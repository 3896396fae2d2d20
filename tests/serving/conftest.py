"""A server in the tests' process, with a small untrained model."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
import torch

import nat_mm
from nat_mm.inference.model import Model
from nat_mm.serving.app import build_app
from nat_mm.serving.intake import Limits
from nat_mm.serving.running import listen, local_address, served

CONFIGS = Path(nat_mm.__file__).parent / '.mim' / 'configs'

Start = Callable[..., httpx.Client]


def png(height: int = 48, width: int = 64, seed: int = 0) -> bytes:
    """Returns the PNG file of an image of noise."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.imencode('.png', image)[1].tobytes()


@pytest.fixture(scope='session')
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """Small untrained models by task."""
    configs = {
        'detection': CONFIGS / 'demo/mask_rcnn_nat_demo.py',
        'segmentation': CONFIGS / 'demo/upernet_nat_demo.py',
    }
    torch.manual_seed(0)
    few = {'model.test_cfg.rcnn.max_per_img': 5}
    return {
        task: nat_mm.load_model(
            config, 'none', device='cpu', overrides=few if task == 'detection' else None
        )
        for task, config in configs.items()
    }


@pytest.fixture
def faults() -> Iterator[list[str]]:
    """The errors that the server logs; a test fails unless it removes them."""
    found: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(handler.format(record))
    loggers = [logging.getLogger(name) for name in ('uvicorn.error', 'asyncio', 'nat_mm')]
    for logger in loggers:
        logger.addHandler(handler)
    yield found
    for logger in loggers:
        logger.removeHandler(handler)
    assert found == []


@pytest.fixture
def start(models: dict[str, Model], faults: list[str]) -> Iterator[Start]:
    """Starts a server for the model of a task, with limits, and returns a client for it."""
    with ExitStack() as stack:

        def start(task: str = 'segmentation', **limits: float) -> httpx.Client:
            listener = stack.enter_context(listen('127.0.0.1', 0))
            app = build_app(models[task], Limits(**limits), name='small')
            stack.enter_context(served(app, listener))
            # Plain HTTP has nothing to verify; this saves 100 ms of reading certificates.
            address = local_address(listener)
            client = httpx.Client(base_url=address, timeout=60, verify=False)
            return stack.enter_context(client)

        yield start


@pytest.fixture
def held(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> Iterator['Held']:
    """Blocks the segmentor until a test releases it."""
    held = Held(models['segmentation'])
    monkeypatch.setattr(models['segmentation'], 'infer', held.infer)
    yield held
    held.go.set()


class Held:
    """A model that waits.

    Attributes:
        go: Set to let it work.
        begun: Set once it has been called.
        batches: Number of images in each call.
    """

    def __init__(self, model: Model) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.batches: list[int] = []
        self._infer = model.infer

    def infer(self, frames):
        self.begun.set()
        self.batches.append(len(frames))
        assert self.go.wait(60)
        return self._infer(frames)
