"""Builders of small models, for fixtures of any scope."""

from collections.abc import Callable

import pytest

from nat_mm.inference.model import Model
from tests.export.models import build_detector, build_segmentor


@pytest.fixture(scope='session')
def detector() -> Callable[..., Model]:
    """Builds a detector by its name in `tests.export.models.DETECTORS`."""
    return build_detector


@pytest.fixture(scope='session')
def segmentor() -> Callable[..., Model]:
    """Builds a small UPerNet."""
    return build_segmentor
