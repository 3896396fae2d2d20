"""The configs of the published experiments, and their facts."""

import functools
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

import nat_mm  # noqa: F401
from tests.model_zoo import ROOT, read_model_zoo

PUBLISHED = json.loads((ROOT / 'tests/data/published_experiments.json').read_text())
FACTS = {facts['name']: facts for facts in PUBLISHED['experiments']}
LEAVES = {
    path.stem: path
    for task in ('detection', 'segmentation')
    for family in ('nat', 'dinat', 'dinat_s')
    for path in sorted((ROOT / 'configs' / task / family).glob('*.py'))
}

Experiment = tuple[Config, dict]


def names(**wanted: str) -> list[str]:
    return [name for name, facts in FACTS.items() if wanted.items() <= facts.items()]


@functools.cache
def load(name: str) -> Experiment:
    return Config.fromfile(LEAVES[name]), FACTS[name]


def load_in_scope(name: str) -> Experiment:
    config, facts = load(name)
    init_default_scope(config.default_scope)
    return config, facts


@functools.cache
def build(name: str) -> nn.Module:
    config, _ = load_in_scope(name)
    # Building on the meta device skips drawing random weights, which takes most of the time.
    with torch.device('meta'):
        return MODELS.build(config.model)


@pytest.fixture(params=names(), scope='module')
def experiment(request: pytest.FixtureRequest) -> Experiment:
    """Each published experiment: its config, with the scope set, and its facts."""
    return load_in_scope(request.param)


@pytest.fixture(params=names(task='detection'), scope='module')
def detection_experiment(request: pytest.FixtureRequest) -> Experiment:
    """Each detection experiment: its config, with the scope set, and its facts."""
    return load_in_scope(request.param)


@pytest.fixture(params=names(task='segmentation'), scope='module')
def segmentation_experiment(request: pytest.FixtureRequest) -> Experiment:
    """Each segmentation experiment: its config, with the scope set, and its facts."""
    return load_in_scope(request.param)


@pytest.fixture(params=names(), scope='module')
def built(request: pytest.FixtureRequest) -> tuple[nn.Module, Config, dict]:
    """Each published experiment: its model on the meta device, its config and its facts."""
    return build(request.param), *load_in_scope(request.param)


@pytest.fixture(params=names(method='Cascade Mask R-CNN'), scope='module')
def cascade(request: pytest.FixtureRequest) -> nn.Module:
    """The model of each experiment with cascade heads, on the meta device."""
    return build(request.param)


@pytest.fixture
def leaves() -> dict[str, Path]:
    """The config files of single experiments, by name."""
    return LEAVES


@pytest.fixture
def facts() -> dict[str, dict]:
    """The facts of all published experiments, by name."""
    return FACTS


@pytest.fixture(scope='session')
def model_zoo() -> dict[str, dict]:
    """The entry of each config in the metafiles, by its name."""
    return read_model_zoo()
