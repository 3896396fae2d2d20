import json
import math
import runpy
import sys

import pytest
import torch
from PIL import Image

from tests.processes import start_fork_server

NUMBERS_OF_ROWS = {'operator': 8, 'module': 4, 'backbone': 4, 'growth': 4, 'onnx': 1}


def numbers(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [value] if isinstance(value, int | float) else []


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['benchmarks', *map(str, arguments)])
    runpy.run_module('benchmarks', run_name='__main__', alter_sys=True)


def test_quick_benchmark_gives_tables_json_and_plot_of_all_sections(tmp_path, monkeypatch, capsys):
    files = [tmp_path / 'figures.json', tmp_path / 'figures.png']
    threads = torch.get_num_threads()
    start_fork_server()  # forks the processes whose memory is measured
    run(monkeypatch, '--quick', '--threads', 1, '--json', files[0], '--plot', files[1])
    torch.set_num_threads(threads)

    output = capsys.readouterr().out
    report = json.loads(files[0].read_text())
    assert report['environment']['threads'] == 1
    assert report['environment']['quick'] is True
    for section, least in NUMBERS_OF_ROWS.items():
        assert len(report[section]) >= least
        measured = numbers(report[section])
        assert len(measured) >= 2 * least
        assert all(math.isfinite(number) and number > 0 for number in measured)
    for figures in report['summary'].values():
        assert figures
        for name, figure in figures.items():
            assert math.isfinite(figure)
            assert figure > 0
            assert name in output
    assert 'threads: 1, medians of 2' in output
    assert output.count('These figures mean nothing') == 2
    assert output.splitlines()[-2:] == [str(file) for file in files]
    with Image.open(files[1]) as image:
        assert min(image.size) > 500
        assert len(image.convert('RGB').getcolors(maxcolors=1 << 24)) > 50


def refuse(monkeypatch, *arguments):
    with pytest.raises(SystemExit, match='2'):
        run(monkeypatch, *arguments)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--repeats', 3], '--repeats must be at least 7; got 3'),
        (['--quick', '--repeats', 0], '--repeats must be at least 1; got 0'),
        (['--threads', 0], '--threads must be at least 1; got 0'),
        (['--json', '.'], '--json must name a file, but . is a folder'),
        (['--json', 'none/a.json'], '--json none/a.json: there is no folder none'),
        (['--plot', 'none/a.png'], '--plot none/a.png: there is no folder none'),
        (['--plot', 'a.txt'], '--plot must end in one of '),
    ],
    ids=['repeats', 'no repeats', 'threads', 'folder', 'json', 'plot', 'plot type'],
)
def test_wrong_input_is_refused_in_one_line_before_anything_is_measured(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    refuse(monkeypatch, *arguments)
    output, error = capsys.readouterr()
    assert error.startswith(f'error: {message}')
    assert error.count('\n') == 1
    assert not output
    assert not list(tmp_path.iterdir())


def test_unknown_sections_are_refused(monkeypatch, capsys):
    refuse(monkeypatch, '--sections', 'kernel')
    assert "invalid choice: 'kernel'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'module', 'needed', 'extras'),
    [
        (['--sections', 'growth', 'module'], 'module', 'mmdet', 'det,lite'),
        (['--sections', 'backbone'], 'backbone', 'mmdet', 'det,lite'),
        (['--sections', 'growth', '--plot', 'a.png'], 'plot', 'matplotlib', 'demo'),
    ],
    ids=['module', 'backbone', 'plot'],
)
def test_missing_packages_are_named_with_the_command_that_installs_them(
    tmp_path, monkeypatch, capsys, arguments, module, needed, extras
):
    monkeypatch.chdir(tmp_path)
    # None makes an import fail. Modules that have imported the package must be imported again.
    for name in ('backbone', 'memory', 'module', 'plot', 'workloads'):
        monkeypatch.delitem(sys.modules, f'benchmarks.{name}', raising=False)
    for name in [each for each in sys.modules if each.startswith(f'{needed}.')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, needed, None)
    refuse(monkeypatch, *arguments)
    error = capsys.readouterr().err
    assert f'needs {needed}' in error
    assert f"pip install 'nat_mm[{extras}]'" in error
    assert error.count('\n') == 1
