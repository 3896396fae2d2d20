"""Tests that a wrong config and a fault of the program raise different classes of errors."""

import copy
import re

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, Registry
from torch import nn

from nat_mm.config.building import BadArgumentError, UnknownTypeError, tell_mistakes_apart
from nat_mm.config.reading import config_mistakes
from nat_mm.errors import UserError

PARTS = Registry('parts of test_building')
REFUSALS = {
    'loud': ValueError('color must be quiet'),
    5: TypeError('color must be a str, got 5'),
    'pink': KeyError('color must be red or blue, got pink'),
    'dark': AssertionError('color must be bright'),
}


@PARTS.register_module()
class Base:
    def __init__(self, size, color='red'):
        if color == 'faulty key':
            {}['missing']
        if color == 'faulty argument':
            len(3)
        if color in REFUSALS:
            raise REFUSALS[color]
        self.size = size


@PARTS.register_module()
class Derived(Base):
    def __init__(self, weight=1, **kwargs):
        super().__init__(**kwargs)


@PARTS.register_module()
class Nest:
    def __init__(self, part):
        self.part = PARTS.build(part)


@pytest.fixture
def told_apart():
    with tell_mistakes_apart():
        yield


@pytest.mark.parametrize(
    ('cfg', 'error', 'message'),
    [
        ({'type': 'Bass'}, UnknownTypeError, 'Bass is not in the'),
        ({'size': 3}, UnknownTypeError, 'must contain the key "type"'),
        ({'type': 3}, BadArgumentError, 'type must be a str or valid type'),
        (['Base'], BadArgumentError, 'cfg should be a dict'),
        ({'type': 'Base'}, BadArgumentError, 'Base needs the argument size'),
        ({'type': 'Base', 'size': 1, 'colour': 2}, BadArgumentError, 'colour is not an argument'),
        ({'type': 'Derived', 'size': 1, 'colour': 2}, BadArgumentError, 'argument of Derived'),
        ({'type': Base, 'siz': 3}, BadArgumentError, 'siz is not an argument of Base'),
        ({'type': 'Nest', 'part': {'type': 'Bass'}}, UnknownTypeError, 'Bass is not in the'),
        (
            {'type': 'Nest', 'part': {'type': 'Base', 'siz': 1}},
            BadArgumentError,
            'siz is not an argument of Base',
        ),
    ],
    ids=str,
)
@pytest.mark.usefixtures('told_apart')
def test_mistakes(cfg, error, message):
    with pytest.raises(error, match=message):
        PARTS.build(cfg)


@pytest.mark.parametrize(
    ('color', 'error'), [('faulty key', KeyError), ('faulty argument', TypeError)]
)
@pytest.mark.parametrize('kind', ['Base', 'Derived'])
@pytest.mark.usefixtures('told_apart')
def test_faults_of_the_program(color, error, kind):
    with pytest.raises(error) as raised:
        PARTS.build({'type': kind, 'size': 1, 'color': color})
    assert type(raised.value) is error


@pytest.mark.usefixtures('told_apart')
def test_default_arguments_count():
    assert PARTS.build({'type': 'Base'}, default_args={'size': 4}).size == 4
    with pytest.raises(BadArgumentError, match='sise is not an argument of Base'):
        PARTS.build({'type': 'Base'}, default_args={'sise': 4})


@pytest.mark.parametrize(
    ('cfg', 'error'),
    [({'type': 'Bass'}, KeyError), ({'type': 'Base', 'siz': 1}, TypeError)],
    ids=['type', 'argument'],
)
def test_registries_raise_as_before_outside_of_the_block(cfg, error):
    with pytest.raises(error) as inside, tell_mistakes_apart():
        PARTS.build(cfg)
    assert type(inside.value) is not error
    with pytest.raises(error) as outside:
        PARTS.build(cfg)
    assert type(outside.value) is error


@pytest.mark.parametrize(
    ('parts', 'place'),
    [
        ({'head': {'type': 'Base', 'size': 1}}, 'head: '),
        ({'nest': {'type': 'Nest', 'part': {'type': 'Base', 'size': 1}}}, 'nest.part: '),
        ({'heads': [{'type': 'Base', 'size': 1}, {'type': 'Base', 'size': 2}]}, 'heads.0: '),
    ],
    ids=['part', 'nested', 'first of two'],
)
@pytest.mark.parametrize('color', REFUSALS)
def test_refused_values_name_their_place(color, parts, place):
    config = Config(parts)
    first = next(iter(config.values()))
    first = first[0] if isinstance(first, list) else first
    first.get('part', first).color = color
    with pytest.raises(UserError) as raised, config_mistakes(config):
        PARTS.build(first)
    error = REFUSALS[color]
    assert str(raised.value).startswith(f'None: {place}{error.args[0]}')
    where = f' ({type(error).__name__} in {__file__}, line '
    assert (where in str(raised.value)) is not isinstance(error, ValueError)


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        ({'optimizer': {'type': 'SGDD', 'lr': 1}}, 'None is not a callable object'),
        (
            {'optimizer': {'type': 'SGD', 'lr': 'abc'}, 'paramwise_cfg': {'bias_lr_mult': 0.5}},
            "can't multiply sequence by non-int",
        ),
        (
            {'optimizer': {'type': 'SGD', 'lr': 1}, 'paramwise_cfg': {'custom_keys': {'0': 5}}},
            "argument of type 'int' is not",
        ),
        ({'optimizer': {'type': 'SGD', 'lr': 1}, 'clip_grad': 5}, 'it should be a `dict`'),
    ],
    ids=['type', 'learning rate', 'options', 'clipping'],
)
def test_values_that_openmmlab_uses_unchecked(settings, text):
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    config = Config({'optim_wrapper': {'type': 'OptimWrapper', **settings}})
    with pytest.raises(UserError, match=re.escape(text)), config_mistakes(config):
        build_optim_wrapper(model, copy.deepcopy(config.optim_wrapper))


def test_faults_in_a_users_model_propagate():
    with pytest.raises(AttributeError, match='missing'), config_mistakes(Config()):
        nn.Module().missing  # noqa: B018


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        ('foo=1', 'model.backbone.foo is not an argument of NAT'),
        ('kernel_size=4', 'model.backbone: '),
    ],
)
def test_pure_python_configs_name_their_places(setting, message, tmp_path):
    path = tmp_path / 'config.py'
    backbone = f"dict(type=NAT, arch='mini', {setting})"
    path.write_text(f'from nat_mm.backbones import NAT\nmodel = dict(backbone={backbone})\n')
    config = Config.fromfile(path)
    with pytest.raises(UserError, match=f'config.py: {message}'), config_mistakes(config):
        MODELS.build(config.model.backbone)
