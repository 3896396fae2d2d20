"""Tests the report of GPU times on the CPU, and the message if there is no GPU."""

import runpy
import sys

import pytest
import torch

from benchmarks import gpu, gpu_timing
from benchmarks.settings import Settings, StageMap
from nat_mm.ops.backends import BACKENDS
from tests.gpu import __main__ as command

CPU = torch.device('cpu')
QUICK = Settings(threads=1, repeats=1, quick=True)
OPERATORS = ['portable', 'sdpa, all tokens', 'sdpa, 7x7 windows']


@pytest.fixture
def short_maps(monkeypatch):
    monkeypatch.setattr(Settings, 'stage_maps', (StageMap(7, 9, 16, 2),))
    monkeypatch.setattr(gpu_timing, 'MOST_SETS', 2)
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)


def tables(report):
    """Returns the rows of cells of each table."""
    blocks = [block for block in report.split('\n\n') if block.startswith('|')]
    return [
        [[cell.strip() for cell in line.strip('|').split('|')] for line in block.splitlines()]
        for block in blocks
    ]


def check_table(table, ways):
    assert table[0] == ['map', 'pass', 'way', 'ms', 'us of the host']
    expected = [['7x9x16/2', mode, way] for mode in gpu.MODES for way in ways]
    assert [row[:3] for row in table[2:]] == expected
    assert all(float(cell) > 0 for row in table[2:] for cell in row[3:])


@pytest.mark.usefixtures('short_maps')
def test_report_times_every_way():
    pytest.importorskip('mmdet', reason='mmdet is not installed')
    report = gpu.make_report(CPU, QUICK, notes=['a note'])
    assert report.startswith('# nat_mm on a GPU\n\n- a note\n- device: ')
    assert f'torch {torch.__version__}' in report
    assert '- natten: supports only CUDA tensors' in report
    found = tables(report)
    assert len(found) == 4  # operator and module, each in two types
    for number, table in enumerate(found):
        check_table(table, ['NA, portable', 'Swin', 'Swin, shifted'] if number % 2 else OPERATORS)


@pytest.mark.usefixtures('short_maps')
def test_report_without_mmdet_leaves_out_swin(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmdet.models.backbones.swin', None)
    report = gpu.make_report(CPU, QUICK)
    assert report.count('Without Swin: mmdet cannot be imported') == 2
    for number, table in enumerate(tables(report)):
        check_table(table, ['NA, portable'] if number % 2 else OPERATORS)


def test_times_are_those_of_one_call(monkeypatch):
    """Times are medians of a loop over all sets of inputs, divided by the number of sets."""
    monkeypatch.setattr(gpu_timing.time, 'perf_counter', iter(range(10_000)).__next__)
    made = []
    functions = {'a': [lambda: made.append(1), lambda: made.append(2)], 'b': [lambda: None] * 4}
    times = gpu_timing.time_all(functions, CPU, QUICK)
    assert times == {'a': (1 / 2, 1 / gpu_timing.HOST_CALLS), 'b': (1 / 4, 1 / 5)}
    assert made[:2] == [1, 2]  # every set is used
    assert gpu_timing.Times(1.5e-3, 1.2e-5).cells() == ('1.5000', '12')


def test_inputs_do_not_fit_into_the_cache():
    sets = gpu_timing.number_of_sets(2**20, CPU)
    assert sets * 2**20 == gpu_timing.CACHES * 2**20
    assert gpu_timing.number_of_sets(2**40, CPU) == 1
    assert gpu_timing.number_of_sets(1, CPU) == gpu_timing.MOST_SETS


def test_what_fails_does_not_take_the_rest_with_it():
    def fail(error):
        raise error

    functions = {
        'good': [lambda: None],
        'large': [lambda: fail(torch.OutOfMemoryError('no'))],
        'broken': [lambda: fail(RuntimeError('bad | kernel\nmore'))],
    }
    rows = [gpu.Row('map', 'forward', gpu_timing.time_all(functions, CPU, QUICK))]
    cells = [row[2:] for row in tables(gpu._table(rows))[0][2:]]
    assert float(cells[0][1]) >= 0
    assert cells[1:] == [['large', 'no memory', ''], ['broken', 'RuntimeError: bad / kernel', '']]


class StandIn:
    """Replaces PyTorch's CUDA graphs and streams, and logs when a graph is recorded."""

    def __init__(self, log):
        self.log = log

    def __call__(self, *_):
        return self

    def __enter__(self):
        self.log.append('begin')

    def __exit__(self, *_):
        self.log.append('end')

    def __getattr__(self, name):
        return lambda *_: self.log.append(name)


def test_on_a_gpu_a_graph_of_all_sets_is_recorded_once_and_replayed(monkeypatch):
    log = []
    for name in ('Stream', 'stream', 'current_stream', 'synchronize', 'CUDAGraph', 'graph'):
        silent = StandIn(log if name in ('CUDAGraph', 'graph') else [])
        monkeypatch.setattr(torch.cuda, name, silent)
    calls = [lambda: log.append(1), lambda: log.append(2)]
    replay = gpu_timing._record(calls, torch.device('cuda'))
    assert log == [1, 2, 'begin', 1, 2, 'end']  # the calls run once before they are recorded
    replay()
    replay()
    assert log[-2:] == ['replay', 'replay']


@pytest.mark.usefixtures('short_maps')
def test_backends_are_timed_with_a_bias_and_without(monkeypatch):
    """Only backends that can serve are timed; here, triton is made to claim that it can."""
    monkeypatch.setattr(BACKENDS['triton'], 'unsupported_reasons', lambda *_: [])
    stage = StageMap(7, 9, 16, 2)
    names = list(gpu._operators(stage, CPU, torch.float32, 'forward'))
    assert names[:3] == ['triton', 'triton, no bias', 'portable']


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['tests.gpu'])
    monkeypatch.delitem(sys.modules, command.__name__)  # runpy must run it, not import it
    with pytest.raises(SystemExit) as end:
        runpy.run_module('tests.gpu', run_name='__main__')
    assert end.value.code == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith('no GPU was found')


@pytest.fixture
def gpu_at_hand(monkeypatch):
    """Makes the command find a GPU but skip tests and timing; returns what it ran, in order."""
    ran = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(command.pytest, 'main', lambda options: ran.append('tests') or 1)
    monkeypatch.setattr(
        gpu, 'make_report', lambda *_, notes, **__: ran.append('times') or f'# {notes[0]}\n'
    )
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    return ran


def test_the_report_goes_where_it_is_asked_to(gpu_at_hand, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / 'new folder' / 'report.md'
    assert command.main(['--out', str(out)]) == 1  # the exit code of the tests
    assert gpu_at_hand == ['tests', 'times']
    assert out.read_text() == '# tests for GPUs: FAILED, see what this command printed\n'
    assert capsys.readouterr().out.splitlines()[-1] == f'{out} can be pasted into an issue'


def test_by_default_the_report_goes_to_the_repository_and_not_to_the_working_directory(
    gpu_at_hand, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert command.REPORT.parts[-2:] == ('work_dirs', 'gpu_report.md')
    monkeypatch.setattr(command, 'REPORT', tmp_path / 'repository' / 'work_dirs' / 'report.md')
    command.main([])
    assert command.REPORT.exists()
    assert [path.name for path in tmp_path.iterdir()] == ['repository']


@pytest.mark.parametrize('name', ['', 'file/report.md'], ids=['folder', 'in a file'])
def test_a_report_that_cannot_be_written_is_refused_at_once(gpu_at_hand, tmp_path, capsys, name):
    (tmp_path / 'file').touch()
    with pytest.raises(SystemExit) as end:
        command.main(['--out', str(tmp_path / name)])
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith('python -m tests.gpu: error: --out:')
    assert gpu_at_hand == []


@pytest.mark.parametrize('has_xdist', [True, False], ids=['xdist', 'no xdist'])
def test_tests_run_side_by_side_where_pytest_can(monkeypatch, has_xdist):
    monkeypatch.setattr(command.importlib.util, 'find_spec', lambda name: has_xdist or None)
    assert ('--numprocesses' in command.pytest_options()) == has_xdist
