"""The published ImageNet classifiers and their configs."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import device, nn

ROOT = Path(__file__).parents[2]
CONFIGS = {path.stem: path for path in sorted((ROOT / 'configs/classification').glob('*nat*/*.py'))}


def config_name(facts: dict) -> str:
    """The name that the config of a published classifier has, such as nat_mini_in1k_224."""
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


@pytest.fixture(scope='session', autouse=True)
def bases_only() -> Iterator[None]:
    """Leaves out mmengine's search of all of mmpretrain's metafiles, half of a second per config.

    They do not list the bases, which alone our configs inherit from.
    """

    def find_in_metafiles(package_path: str, name: str) -> str:
        raise ValueError(f'{name} is no base of {package_path}')

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.config.config._get_external_cfg_path', find_in_metafiles)
        yield


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
    with device('meta'):
        return MODELS.build(classifier[0].model)


@pytest.fixture
def leaves() -> dict[str, Path]:
    """The config files of single classifiers, by name."""
    return CONFIGS


@pytest.fixture
def facts() -> dict[str, dict]:
    """The facts of all published classifiers, by the names of their configs."""
    return FACTS
