"""Tests that processes which a test leaves behind end with it."""

import gc
import multiprocessing
import time
from collections.abc import Iterator

import pytest
from torch.utils.data import DataLoader


@pytest.fixture(scope='module', autouse=True)
def nothing_left() -> Iterator[None]:
    """Checks what is left after the fixtures of each test; fails as an error of the last one."""
    yield
    assert multiprocessing.active_children() == []


@pytest.fixture
def no_garbage_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def test_lost_data_loader(no_garbage_collection):
    loaded = iter(DataLoader(range(4), num_workers=2, multiprocessing_context='fork'))
    loaded.itself = loaded
    del loaded
    assert len(multiprocessing.active_children()) == 2


def test_process_that_is_not_garbage():
    process = multiprocessing.get_context('fork').Process(target=time.sleep, args=(900,))
    process.start()
    assert process.is_alive()
