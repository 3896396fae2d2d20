"""The configs of the published experiments, and their facts."""

import functools
import json
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

import nat_mm  # noqa: F401

ROOT = Path(__file__).parents[2]
FACTS = json.loads((ROOT / 'tests' / 'data' / 'nat_experiments.json').read_text())
LEAVES = {path.stem: path for path in sorted((ROOT / 'configs').glob('*/nat/*.py'))}

Experiment = tuple[Config, dict]


def names(key: str, value: str) -> list[str]:
    return sorted(name for name, facts in FACTS.items() if facts[key] == value)


@functools.cache
def load(name: str) -> Experiment:
    return Config.fromfile(LEAVES[name]), FACTS[name]


def load_in_scope(name: str) -> Experiment:
    config, facts = load(name)
    init_default_scope(config.default_scope)
    return config, facts


@pytest.fixture(params=sorted(FACTS), scope='module')
def experiment(request: pytest.FixtureRequest) -> Experiment:
    """Each published experiment: its config, with the scope set, and its facts."""
    return load_in_scope(request.param)


@pytest.fixture(params=names('task', 'detection'), scope='module')
def detection_experiment(request: pytest.FixtureRequest) -> Experiment:
    """Each detection experiment: its config, with the scope set, and its facts."""
    return load_in_scope(request.param)


@pytest.fixture(params=names('task', 'segmentation'), scope='module')
def segmentation_experiment(request: pytest.FixtureRequest) -> Experiment:
    """Each segmentation experiment: its config, with the scope set, and its facts."""
    return load_in_scope(request.param)


@pytest.fixture(params=names('method', 'Cascade Mask R-CNN'), scope='module')
def cascade_experiment(request: pytest.FixtureRequest) -> Experiment:
    """Each experiment with cascade heads: its config, with the scope set, and its facts."""
    return load_in_scope(request.param)


@pytest.fixture
def leaves() -> dict[str, Path]:
    """The config files of single experiments, by name."""
    return LEAVES


@pytest.fixture
def facts() -> dict[str, dict]:
    """The facts of all published experiments, by name."""
    return FACTS
