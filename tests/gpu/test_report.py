"""The report of times on a GPU, tried on the CPU, and what is said where there is no GPU."""

import runpy
import time

import pytest
import torch

from nat_mm.benchmark import gpu
from nat_mm.benchmark.settings import Settings, StageMap
from nat_mm.ops.backends import BACKENDS

CPU = torch.device('cpu')
QUICK = Settings(threads=1, repeats=1, quick=True)


@pytest.fixture
def short_maps(monkeypatch):
    monkeypatch.setattr(Settings, 'stage_maps', (StageMap(7, 9, 16, 2),))


def tables(report):
    """Rows of cells of each table."""
    blocks = [block for block in report.split('\n\n') if block.startswith('|')]
    return [
        [[cell.strip() for cell in line.strip('|').split('|')] for line in block.splitlines()]
        for block in blocks
    ]


@pytest.mark.usefixtures('short_maps')
def test_report_times_every_way(monkeypatch):
    pytest.importorskip('mmdet', reason='mmdet is not installed')
    monkeypatch.delenv('TRITON_INTERPRET')
    report = gpu.make_report(CPU, QUICK, time.perf_counter, notes=['a note'])
    assert report.startswith('# nat_mm on a GPU\n\n- a note\n- device: ')
    assert f'torch {torch.__version__}' in report
    assert '- natten: serves CUDA tensors only' in report
    found = tables(report)
    assert len(found) == 4  # operator and module, in two types
    operator, module = found[:2]
    assert operator[0][2:] == ['portable', 'sdpa, all tokens', 'sdpa, 7x7 windows']
    assert module[0][2:] == ['NA, portable', 'Swin', 'Swin, shifted']
    for table in found:
        assert [row[:2] for row in table[2:]] == [['7x9x16/2', mode] for mode in gpu.MODES]
        assert all(float(cell) > 0 for row in table[2:] for cell in row[2:])


@pytest.mark.usefixtures('short_maps')
def test_medians_of_the_clock_are_in_milliseconds():
    ticks = iter(range(10_000))

    def make(stage, device, dtype, mode):
        return {'a': lambda: None, 'b': lambda: None}

    rows = gpu._measure(make, CPU, torch.float32, QUICK, lambda: next(ticks))
    assert [row.milliseconds for row in rows] == 2 * [{'a': 1000.0, 'b': 1000.0}]


@pytest.mark.usefixtures('short_maps')
def test_what_fails_does_not_take_the_rest_with_it(monkeypatch):
    def fail(error):
        raise error

    def make(stage, device, dtype, mode):
        return {
            'good': lambda: None,
            'large': lambda: fail(torch.OutOfMemoryError('no')),
            'broken': lambda: fail(RuntimeError('bad | kernel\nmore')),
        }

    monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: None)
    rows = gpu._measure(make, CPU, torch.float32, QUICK, time.perf_counter)
    cells = tables(gpu._table(rows))[0][2]
    assert float(cells[2]) >= 0
    assert cells[3:] == ['no memory', 'RuntimeError: bad / kernel']


@pytest.mark.usefixtures('short_maps')
def test_backends_are_timed_with_a_bias_and_without(monkeypatch):
    """Where they can serve: here triton, by its interpreter's leave."""
    monkeypatch.setattr(BACKENDS['triton'], 'unsupported_reasons', lambda *_: [])
    stage = StageMap(7, 9, 16, 2)
    names = list(gpu._operators(stage, CPU, torch.float32, 'forward'))
    assert names[:3] == ['triton', 'triton, no bias', 'portable']


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_one_line_says_so(capsys):
    with pytest.raises(SystemExit) as end:
        runpy.run_module('tests.gpu', run_name='__main__')
    assert end.value.code == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith('no GPU was found')
