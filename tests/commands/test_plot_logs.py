"""Tests tools/plot_logs.py and what it draws."""

import json
import math

import cv2
import numpy as np
import pytest

from nat_mm.analysis.training_logs import Curve, read_log
from nat_mm.errors import UserError
from tests.loading import load_command


@pytest.fixture(scope='module')
def plot():
    """``main`` of tools/plot_logs.py."""
    return load_command('plot_logs').main


def by_epoch(first, last, loss, per_epoch=10, interval=5):
    """Makes the log of a detector: losses by iteration and a validation after each epoch."""
    entries = []
    for epoch in range(first, last + 1):
        for inside in range(interval, per_epoch + 1, interval):
            step = (epoch - 1) * per_epoch + inside
            entries.append({'lr': 0.1, 'loss': loss, 'epoch': epoch, 'iter': step, 'step': step})
        entries.append({'coco/bbox_mAP': loss / 100 + epoch / 10, 'step': epoch})
    return entries


def by_iteration(*steps):
    """Makes the log of a segmentor: no epochs, and a validation every 100 iterations."""
    entries = []
    for step in steps:
        entries.append({'lr': 0.1, 'loss': 1 / step, 'iter': step, 'step': step})
        if step % 100 == 0:
            entries.append({'mIoU': step / 10, 'aAcc': 90.0, 'step': step})
    return entries


def write_log(work_dir, entries, start='20260101_000000'):
    file = work_dir / start / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text(''.join(json.dumps(entry) + '\n' for entry in entries))
    return file


def test_curves_of_a_training_by_epoch(tmp_path):
    write_log(tmp_path, by_epoch(1, 3, loss=2.0))
    log = read_log(tmp_path)
    assert log.keys == ['lr', 'loss', 'coco/bbox_mAP']
    assert log.curve('loss') == Curve([5, 10, 15, 20, 25, 30], [2.0] * 6, 'iteration')
    metric = log.curve('coco/bbox_mAP')
    assert (metric.places, metric.unit) == ([1, 2, 3], 'epoch')
    assert metric.values == pytest.approx([0.12, 0.22, 0.32])


def test_curves_of_a_training_by_iteration(tmp_path):
    write_log(tmp_path, by_iteration(50, 100, 150, 200))
    log = read_log(tmp_path)
    assert log.curve('mIoU') == Curve([100, 200], [10.0, 20.0], 'iteration')


@pytest.mark.parametrize('path', ['.', 'later', 'later/vis_data', 'later/vis_data/scalars.json'])
def test_where_a_log_is_found(path, tmp_path):
    write_log(tmp_path, by_iteration(50, 100), start='later')
    assert len(read_log(tmp_path / path).entries) == 3


def test_resumed_training(tmp_path):
    """The second epoch was trained again after a run had stopped in the third."""
    write_log(tmp_path, by_epoch(1, 3, loss=2.0)[:-1], start='20260101_000000')
    write_log(tmp_path, by_epoch(2, 3, loss=1.0), start='20260102_000000')
    log = read_log(tmp_path)
    assert log.curve('loss').places == [5, 10, 15, 20, 25, 30]
    assert log.curve('loss').values == [2.0, 2.0, 1.0, 1.0, 1.0, 1.0]
    assert log.curve('coco/bbox_mAP').places == [1, 2, 3]
    assert log.curve('coco/bbox_mAP').values == pytest.approx([0.12, 0.21, 0.31])


def test_training_that_is_being_logged(tmp_path, capsys):
    file = write_log(tmp_path, by_iteration(50, 100))
    file.write_text(file.read_text()[:-9])
    assert len(read_log(tmp_path).entries) == 2
    assert capsys.readouterr().err == f'warning: {file}, line 3 is not complete, left out\n'


@pytest.fixture
def runs(tmp_path):
    """The work directories of a detector and a segmentor."""
    write_log(tmp_path / 'det', by_epoch(1, 3, loss=2.0))
    write_log(tmp_path / 'seg', by_iteration(50, 100))
    return [str(tmp_path / 'det'), str(tmp_path / 'seg')]


def test_picture(plot, runs, tmp_path, capsys):
    """There are panels for the loss, the boxes and the classes of pixels."""
    out = tmp_path / 'new' / 'curves.png'
    plot([*runs, '--out', str(out)])
    assert capsys.readouterr().out == f'{out}\n'
    picture = cv2.imread(str(out))
    assert picture.shape == (round(2 * 3.6 * 110), 2 * 6 * 110, 3)
    blue, green, red = (picture[..., channel].astype(int) for channel in range(3))
    first = (blue - red > 80) & (abs(green - 119) < 40)  # matplotlib's first color
    assert first[:400].any()
    assert not first[400:, 660:].any()  # no fourth panel


@pytest.mark.parametrize(('suffix', 'start'), [('.pdf', b'%PDF'), ('.svg', b'<?xml')])
def test_formats_for_printing(suffix, start, plot, runs, tmp_path):
    out = tmp_path / f'curves{suffix}'
    plot([runs[0], '--keys', 'lr', '--log-scale', 'lr', '--out', str(out)])
    assert out.read_bytes().startswith(start)


@pytest.fixture
def drawn(monkeypatch):
    """The curves drawn into each panel."""
    panels = {}

    def draw(axes, curves, *, title, colors):
        assert list(colors.values()) == ['C0', 'C1']
        panels[title] = curves

    monkeypatch.setattr('nat_mm.analysis.curves.draw_panel', draw)
    return panels


def test_chosen_keys_and_legend(plot, runs, drawn, tmp_path):
    options = ['--keys', 'lr', 'loss', '--legend', 'A', 'B', '--out', str(tmp_path / 'curves.svg')]
    plot([*runs, *options])
    assert {title: list(curves) for title, curves in drawn.items()} == {
        'lr': ['A', 'B'],
        'loss': ['A', 'B'],
    }
    assert drawn['loss']['B'] == Curve([50, 100], [1 / 50, 1 / 100], 'iteration')


def test_usual_keys(plot, runs, drawn, tmp_path):
    plot([*runs, '--out', str(tmp_path / 'curves.svg')])
    assert {title: list(curves) for title, curves in drawn.items()} == {
        'loss': ['det', 'seg'],
        'coco/bbox_mAP': ['det'],
        'mIoU': ['seg'],
    }


def test_name_of_a_file_is_that_of_its_work_dir(plot, runs, drawn, tmp_path):
    (file,) = (tmp_path / 'det').glob('*/vis_data/scalars.json')
    plot([str(file), runs[1], '--out', str(tmp_path / 'curves.svg')])
    assert list(drawn['loss']) == ['det', 'seg']


def test_values_that_are_no_numbers(tmp_path, plot):
    """A loss that becomes NaN leaves a gap."""
    write_log(tmp_path / 'run', [*by_iteration(10, 20), {'loss': math.nan, 'iter': 30, 'step': 30}])
    plot([str(tmp_path / 'run'), '--out', str(tmp_path / 'curves.png')])
    assert np.ptp(cv2.imread(str(tmp_path / 'curves.png'))) == 255


def test_values_of_other_types_are_left_out(tmp_path):
    entries = [*by_iteration(10, 20), {'loss': 'high', 'note': 'good', 'iter': 30, 'step': 30}]
    write_log(tmp_path, entries)
    log = read_log(tmp_path)
    assert log.curve('loss').places == [10, 20]
    with pytest.raises(UserError, match="has no 'note'; it has: lr, loss"):
        log.curve('note')


def test_list_of_keys(plot, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plot([*runs, '--list-keys'])
    assert capsys.readouterr().out == 'det: lr, loss, coco/bbox_mAP\nseg: lr, loss, mIoU, aAcc\n'
    assert not (tmp_path / 'curves.png').exists()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--keys', 'mIoU'], "det has no 'mIoU'; it has: lr, loss, coco/bbox_mAP"),
        (['--log-scale', 'mAP'], '--log-scale mAP is not among loss, coco/bbox_mAP, mIoU'),
        (['--legend', 'A'], '--legend has 1 names for 2 logs'),
        (['--legend', 'A', 'A'], 'two logs are called A: tell them apart with --legend'),
        (['--out', 'curves.jpg'], '--out must end with .png, .pdf, .svg, got curves.jpg'),
    ],
)
def test_mistakes(options, message, plot, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as raised:
        plot([*runs, *options])
    assert str(raised.value).endswith(message)
    assert not list(tmp_path.glob('*curves*'))


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('{"loss": 1, "step": 1}\n{"loss" 1}\n{"step": 2}\n', 'line 2 is not JSON: '),
        ('[1, 2]\n', 'line 1 is not from the log of a training run: it has no "step"'),
        ('{"loss": 1}\n', 'line 1 is not from the log of a training run: it has no "step"'),
        (
            '{"loss": 1, "step": 1, "iter": 1}\n{"loss": 1, "step": 2, "iter": "x"}\n',
            'line 2 is not from the log of a training run: its "iter" is no integer but "x"',
        ),
        ('{"loss": 1, "step": 1, "epoch": [1]}\n', 'its "epoch" is no integer but [1]'),
        ('{"loss": 1, "step": true}\n', 'its "step" is no integer but true'),
        ('{"loss": 1, "step": 1, "iter": null}\n', 'its "iter" is no integer but null'),
        ('\n', 'is empty'),
        ('\udcff', 'cannot read the log'),
    ],
    ids=[
        *('broken line', 'list', 'no step', 'text as iter', 'list as epoch', 'bool as step'),
        *('no iter', 'empty', 'no text'),
    ],
)
def test_damaged_log(content, message, plot, tmp_path):
    file = tmp_path / 'scalars.json'
    file.write_text(content, errors='surrogateescape')
    with pytest.raises(UserError) as raised:
        plot([str(file), '--out', str(tmp_path / 'curves.png')])
    assert str(file) in str(raised.value)
    assert message in str(raised.value)


def test_missing_logs(plot, tmp_path):
    with pytest.raises(UserError, match='log not found: gone'):
        plot(['gone'])
    with pytest.raises(UserError, match='no log of a training run in '):
        plot([str(tmp_path)])
