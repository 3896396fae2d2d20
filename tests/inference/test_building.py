"""Tests that a wrong config and a fault of the program raise different classes of errors."""

import pytest
from mmengine.registry import Registry

from nat_mm.inference.building import BadArgumentError, UnknownTypeError, tell_mistakes_apart

PARTS = Registry('parts of test_building')


@PARTS.register_module()
class Base:
    def __init__(self, size, color='red'):
        if color == 'faulty key':
            {}['missing']
        if color == 'faulty argument':
            len(3)
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
