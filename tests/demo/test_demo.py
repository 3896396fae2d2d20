import json
import runpy
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from PIL import Image

from nat_mm.commands import demo
from nat_mm.demo import KINDS, PALETTE, runs
from tests.processes import ForkedPython

ROOT = Path(__file__).resolve().parents[2]


def test_configs_name_the_kinds_of_the_generated_data():
    detector = Config.fromfile(ROOT / 'configs/demo/mask_rcnn_nat_demo.py')
    segmentor = Config.fromfile(ROOT / 'configs/demo/upernet_nat_demo.py')
    assert detector.metainfo == dict(classes=KINDS, palette=list(PALETTE))
    assert segmentor.metainfo == dict(classes=('background', *KINDS), palette=[(0, 0, 0), *PALETTE])


def test_quick_demo_runs_every_step_and_again_over_its_own_folder(tmp_path, monkeypatch, capfd):
    work_dir = tmp_path / 'demo'
    (work_dir / 'detector').mkdir(parents=True)
    (work_dir / 'detector/left_over.pth').touch()
    (work_dir / '.nat_mm_demo').touch()

    # Forks the demo's processes, since new ones would import OpenMMLab again.
    monkeypatch.setattr(runs.subprocess, 'Popen', ForkedPython)
    monkeypatch.setattr(demo, 'exit_on_signals', lambda: None)  # pytest needs the signals
    monkeypatch.setenv('NAT_MM_DEMO_DATA', 'set by the demo')
    arguments = ['--quick', '--seed', '1', '--work-dir', str(work_dir)]
    monkeypatch.setattr(sys, 'argv', ['demo.py', *arguments])
    demo.main()
    output = capfd.readouterr().out

    assert not (work_dir / 'detector/left_over.pth').exists()
    assert json.loads((work_dir / 'data/options.json').read_text())['seed'] == 1
    assert (work_dir / 'detector/iter_4.pth').is_file()
    assert (work_dir / 'segmentor/iter_4.pth').is_file()
    metrics = json.loads((work_dir / 'metrics.json').read_text())
    assert list(metrics) == ['box AP50', 'mask AP50', 'mIoU', 'minutes']
    assert all(0 <= metrics[name] <= 1 for name in ('box AP50', 'mask AP50', 'mIoU'))
    assert metrics['minutes'] > 0
    for line in ('detector', 'segmentor'):
        assert f'{line:<10} train    4/4' in output
    assert all(name in output for name in metrics)
    printed = output.splitlines()[-3:]
    assert printed == [
        str(work_dir / 'images' / name) for name in ('detector.png', 'segmentor.png', 'curves.png')
    ]
    for picture in printed:
        with Image.open(picture) as image:
            assert min(image.size) > 500
            assert len(image.convert('RGB').getcolors(maxcolors=1 << 24)) > 50


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--seed', -1], 'error: seed must be at least 0; got -1\n'),
        (['--work-dir', 'mine'], 'error: mine is not empty and was not written by the demo'),
        (['--work-dir', 'mine/thesis.txt'], 'error: mine/thesis.txt is a file, not a folder\n'),
    ],
    ids=['seed', 'foreign folder', 'file'],
)
def test_wrong_input_is_one_line_and_leaves_everything_alone(
    tmp_path, monkeypatch, capsys, arguments, message
):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.txt').write_text('precious')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['demo.py', '--quick', *map(str, arguments)])
    with pytest.raises(SystemExit, match='2'):
        runpy.run_path(str(ROOT / 'tools/demo.py'), run_name='__main__')
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count('\n') == 1
    assert [path.name for path in tmp_path.rglob('*')] == ['mine', 'thesis.txt']
