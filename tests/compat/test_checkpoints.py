"""Tests that mmengine's checkpoints load with weights_only, but damaged files and code do not."""

import copyreg
import os
import pickle
import zipfile
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from torch import nn

from tests.compat.regression import train


def test_resumed_training_equals_uninterrupted_training(tmp_path):
    train(tmp_path / 'parts', 2, 'compat-first')
    resumed = train(tmp_path / 'parts', 4, 'compat-second', resume=True)
    whole = train(tmp_path / 'whole', 4, 'compat-whole')

    assert resumed.iter == whole.iter == 16
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict())
    histories = [runner.message_hub.get_scalar('train/loss').data[0] for runner in (resumed, whole)]
    assert len(histories[0]) == 16
    torch.testing.assert_close(*map(torch.from_numpy, histories))


def save_history(path):
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    torch.save({'state_dict': {'weight': torch.ones(2)}, 'history': history}, path)


def load(path):
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')


@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'], ids=['numpy-1', 'numpy-2'])
def test_history_written_by_either_numpy_loads(tmp_path, core):
    path = tmp_path / 'history.pth'
    save_history(path)
    rewrite_pickle(path, lambda data: replace_any(data, [b'numpy._core', b'numpy.core'], core))
    assert load(path)['history'].mean() == 2


def rewrite_pickle(path, edit):
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in contents.items():
            archive.writestr(name, edit(data) if name.endswith('data.pkl') else data)


def replace_any(data, names, replacement):
    assert any(name in data for name in names)
    for name in names:
        data = data.replace(b'c' + name + b'.', b'c' + replacement.encode() + b'.')
    return data


class Call:
    """Pickles as a function call, optionally with a state for its result."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


class New(Call):
    """Pickles as a new object of a class, created without calling its constructor."""

    @property
    def __class__(self):
        return self.call[0]  # pickle compares this class

    def __reduce_ex__(self, protocol):
        kind, arguments, *state = self.call
        return (copyreg.__newobj__, (kind, *arguments), *state)


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize(
    ('call', 'name'),
    [
        (lambda marker: Call(os.mkdir, str(marker)), 'posix.mkdir'),
        (lambda marker: Call(exec, f'import os; os.mkdir({str(marker)!r})'), 'exec'),
        (lambda marker: Call(getattr, HistoryBuffer, 'update'), 'builtins.getattr'),
        (lambda marker: Call(getattr, torch.Tensor, 'min'), 'builtins.getattr'),
    ],
    ids=['os', 'exec', 'getattr-other-method', 'getattr-other-class'],
)
def test_code_is_refused_and_does_not_run(tmp_path, call, name, zipped):
    path, marker = tmp_path / 'evil.pth', tmp_path / 'marker'
    content = {'state_dict': {}, 'payload': call(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=f'evil.pth is refused.*{name}') as caught:
        load(path)
    assert '\n' not in str(caught.value)
    assert not marker.exists()


make_array, make_scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
OBJECTS, FLOATS = np.dtype('O'), np.dtype('f8')
# Zeros, which NumPy would read as None in place of objects, should it ever be called.
NO_ADDRESSES = np.zeros(2, np.int64)


def array_of(*state):
    return Call(make_array, np.ndarray, (0,), b'b', state=(1, *state))


def history_of(log, count, length=9):
    state = {'_log_history': log, '_count_history': count, 'max_length': length}
    return New(HistoryBuffer, state=state)


NO_NUMBERS = {
    'array over addresses': Call(np.ndarray, (2,), 'O', NO_ADDRESSES),
    'new array over addresses': New(np.ndarray, (2,), 'O', NO_ADDRESSES),
    'array without content': Call(np.ndarray, (2,)),
    'reconstructed without content': Call(make_array, np.ndarray, (0,), b'b'),
    'reconstructed from objects': Call(make_array, np.ndarray, (2,), b'O'),
    'reconstructed from a dtype': Call(make_array, np.dtype, (0,), b'b'),
    'state of too few objects': array_of((2,), OBJECTS, False, [1]),
    'state of too few bytes': array_of((3,), FLOATS, False, bytes(16)),
    'state of a negative shape': array_of((-2,), FLOATS, False, bytes(16)),
    'state of an endless shape': array_of((2**40, 0, 2**40), FLOATS, False, b''),
    'dtype of objects': Call(np.dtype, 'O'),
    'new dtype of objects': New(np.dtype, 'O'),
    'dtype of a record': Call(np.dtype, [('field', 'O')]),
    'dtype of another byte order': Call(
        np.dtype, 'f8', False, True, state=(3, '>', None, None, None, -1, -1, 0)
    ),
    'scalar of an object': Call(make_scalar, OBJECTS, bytes(8)),
    'scalar of too few bytes': Call(make_scalar, FLOATS, bytes(4)),
    'scalar without bytes': Call(make_scalar, FLOATS),
    'strings': np.array(['a', 'b']),
    'complex numbers': np.array([1 + 2j]),
    'class': np.ndarray,
    'class as a key': {HistoryBuffer: 1},
    'class in a key': {(np.ndarray, 1): 1},
    'history of a list': history_of([1.0], [1]),
    'history of two lengths': history_of(np.ones(2), np.ones(3)),
    'history of a table': history_of(np.ones((2, 2)), np.ones((2, 2))),
    'history of no length': history_of(np.ones(2), np.ones(2), 0),
    'history without content': New(HistoryBuffer),
    'history from its constructor': Call(HistoryBuffer, [1.0], [1]),
}


@pytest.mark.parametrize('value', NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_what_is_no_plain_number_or_history_is_refused(tmp_path, value):
    path = tmp_path / 'numbers.pth'
    torch.save({'state_dict': {}, 'value': value}, path)
    with pytest.raises(ValueError, match=r'numbers\.pth.* is (truncated, damaged|refused)'):
        load(path)


@pytest.mark.parametrize('dtype', ['float64', 'float32', 'int64', 'int32', 'bool'])
@pytest.mark.parametrize('shape', [(), (0,), (3,), (2, 3)], ids=str)
def test_numbers_are_what_was_saved(tmp_path, shape, dtype):
    path = tmp_path / 'numbers.pth'
    array = np.asarray(np.arange(np.prod(shape)).reshape(shape), dtype, order='F')
    number = array.sum(dtype=dtype)
    torch.save({'array': array, 'number': number, 'named': {'x': array}}, path)
    found = load(path)
    assert type(found['array']) is np.ndarray
    assert found['array'].dtype == dtype
    assert np.array_equal(found['array'], array)
    assert (type(found['number']), found['number']) == (type(number), number)
    assert found['named']['x'] is found['array']
    found['array'][...] = 0  # writable


def test_empty_history(tmp_path):
    torch.save({'history': HistoryBuffer()}, tmp_path / 'history.pth')
    history = load(tmp_path / 'history.pth')['history']
    history.update(3)
    assert history.mean() == 3


def test_history_does_not_change_others(tmp_path):
    path = tmp_path / 'history.pth'
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    methods = {'mean': HistoryBuffer.min, 'median': HistoryBuffer.min}
    state = {**history.__getstate__(), 'statistics_methods': methods, 'mean': HistoryBuffer.min}
    torch.save({'history': New(HistoryBuffer, state=state)}, path)
    loaded = load(path)['history']
    for buffer in (loaded, HistoryBuffer([1.0, 3.0], [1, 1])):
        assert buffer.mean() == buffer.statistics('mean') == 2
        with pytest.raises(KeyError):
            buffer.statistics('median')


def test_plain_torch_load_stays_as_pytorch_ships_it(tmp_path):
    save_history(tmp_path / 'history.pth')
    torch.save({'value': Call(os.getcwd)}, tmp_path / 'evil.pth')
    allowed = set(torch.serialization.get_safe_globals())
    assert not allowed & {HistoryBuffer, np.ndarray, np.dtype, make_array, make_scalar}
    load(tmp_path / 'history.pth')
    with pytest.raises(ValueError, match='is refused'):
        load(tmp_path / 'evil.pth')
    assert set(torch.serialization.get_safe_globals()) == allowed
    with pytest.raises(pickle.UnpicklingError, match='Unsupported global'):
        torch.load(tmp_path / 'history.pth')


def test_what_the_program_allows_goes_on_being_allowed_but_for_numpy(tmp_path):
    torch.save({'place': Call(os.path.join, 'a', 'b')}, tmp_path / 'own.pth')
    torch.save({'array': Call(np.ndarray, (2,))}, tmp_path / 'array.pth')
    own = [os.path.join, np.ndarray]
    with torch.serialization.safe_globals(own):
        assert load(tmp_path / 'own.pth')['place'] == 'a/b'
        with pytest.raises(ValueError, match=r'array\.pth.* is truncated, damaged'):
            load(tmp_path / 'array.pth')
        assert set(own) <= set(torch.serialization.get_safe_globals())


def test_two_threads_read_at_once(tmp_path):
    save_history(tmp_path / 'history.pth')
    allowed = set(torch.serialization.get_safe_globals())
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(load, [tmp_path / 'history.pth'] * 100))
    assert {each['history'].mean() for each in found} == {2}
    assert set(torch.serialization.get_safe_globals()) == allowed


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def holds_itself():
    value = []
    value.append({'again': value})
    return value


@pytest.mark.parametrize(
    'value', [nested(200), holds_itself()], ids=['nested too deeply', 'holds itself']
)
def test_endless_nesting_is_refused(tmp_path, value):
    torch.save({'value': value}, tmp_path / 'nested.pth')
    check_damaged(tmp_path / 'nested.pth')


def test_what_occurs_many_times_is_looked_at_once(tmp_path):
    value = ['x']
    for _ in range(60):
        value = [value, value]
    torch.save({'value': value}, tmp_path / 'many.pth')
    found = load(tmp_path / 'many.pth')['value']
    assert found[0] is found[1]


def test_attributes_of_containers_and_tensors_are_left_out(tmp_path):
    """Attributes would replace methods that are called later."""
    weight, bias = torch.ones(2), nn.Parameter(torch.zeros(1))
    weight.numel = bias
    state = {'items': bias, '_metadata': {'': {'version': 1}}}
    weights = Call(OrderedDict, [('weight', weight), ('bias', bias)], state=state)
    torch.save({'state_dict': weights}, tmp_path / 'attributes.pth')
    found = load(tmp_path / 'attributes.pth')['state_dict']
    assert list(found.items())[0][0] == 'weight'
    assert found['weight'].numel() == 2
    assert type(found['bias']) is nn.Parameter
    assert vars(found) == {'_metadata': {'': {'version': 1}}}


def test_file_that_would_fill_the_memory_is_refused(tmp_path):
    path = tmp_path / 'zeros.pth'
    torch.save({'state_dict': {'weight': torch.zeros(2**20)}}, path)
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    with pytest.raises(ValueError, match=r'zeros\.pth is refused: its \d+ bytes would become 4\d+'):
        load(path)


def test_call_of_an_allowed_name_is_refused(tmp_path):
    class Statistic:
        def __reduce__(self):
            return HistoryBuffer.min, (HistoryBuffer([1.0], [1]),)

    path = tmp_path / 'call.pth'
    torch.save({'value': Statistic()}, path)
    check_damaged(path)


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('share', [0, 0.0001, 0.5, 0.999])
def test_truncated_checkpoint_is_named(tmp_path, share, zipped):
    path = tmp_path / 'cut.pth'
    content = {'state_dict': {'weight': torch.randn(100, 100)}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    check_damaged(path)


@pytest.mark.parametrize(
    'content',
    [b'not a checkpoint at all\n', b'<html>404</html>', pickle.dumps({'state_dict': {}})],
    ids=['text', 'html', 'plain-pickle'],
)
def test_other_file_is_named(tmp_path, content):
    path = tmp_path / 'other.pth'
    path.write_bytes(content)
    check_damaged(path)


def check_damaged(path):
    with pytest.raises(ValueError, match=f'{path.name}.*is truncated, damaged, or') as caught:
        load(path)
    assert '\n' not in str(caught.value)


def test_missing_file_keeps_its_own_error(tmp_path):
    with pytest.raises(FileNotFoundError, match='absent.pth'):
        load(tmp_path / 'absent.pth')
