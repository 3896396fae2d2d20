"""The published ImageNet classifiers and their configs."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import device, nn

from tests.model_zoo import ROOT, read_model_zoo

MODEL_ZOO = read_model_zoo()
CONFIGS = {path.stem: path for path in sorted((ROOT / 'configs/classification').glob('*nat*/*.py'))}


def config_name(facts: dict) -> str:
    """Returns the name of a published classifier's config, such as nat_mini_in1k_224."""
    data = 'in22k_in1k' if facts['pretraining'] else 'in1k'
    kernel = '' if facts['kernel_size'] == 7 else '_{0}x{0}'.format(facts['kernel_size'])
    return f'{facts["name"].lower().replace("-", "_")}_{data}_{facts["resolution"]}{kernel}'


CLASSIFIERS = json.loads((ROOT / 'tests/data/published_experiments.json').read_text())
FACTS = {config_name(facts): facts for facts in CLASSIFIERS['imagenet_backbones']}


@functools.cache
def read(name: str) -> Config:
    return Config.fromfile(CONFIGS[name])


def read_in_scope(name: str) -> Config:
    config = read(name)
    init_default_scope(config.default_scope)
    return config


@functools.cache
def build(name: str) -> nn.Module:
    with device('meta'):
        return MODELS.build(read_in_scope(name).model)


@pytest.fixture
def load() -> Callable[[str], Config]:
    """Reads the config of a published classifier and sets its scope."""
    return read_in_scope


@pytest.fixture(params=list(FACTS))
def classifier(request: pytest.FixtureRequest) -> tuple[Config, dict]:
    """Each published classifier: its config, with the scope set, and its facts."""
    return read_in_scope(request.param), FACTS[request.param]


@pytest.fixture
def model(classifier: tuple[Config, dict]) -> nn.Module:
    """The model of a published classifier, without memory for its weights."""
    return build(config_name(classifier[1]))


@pytest.fixture
def metadata(classifier: tuple[Config, dict]) -> dict:
    """The published figures of each classifier, from its metafile."""
    return MODEL_ZOO[config_name(classifier[1])]['Metadata']


@pytest.fixture
def leaves() -> dict[str, Path]:
    """The config files of single classifiers, by name."""
    return CONFIGS


@pytest.fixture
def facts() -> dict[str, dict]:
    """The facts of all published classifiers, by the names of their configs."""
    return FACTS


@pytest.fixture
def model_zoo() -> dict[str, dict]:
    """The entry of each config in the metafiles, by its name."""
    return MODEL_ZOO
