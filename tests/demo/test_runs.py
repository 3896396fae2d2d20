import os
import signal
import sys
import time

import pytest

from nat_mm.commands.running import exit_on_signals
from nat_mm.demo.runs import Run, run_side_by_side
from nat_mm.errors import UserError
from tests.processes import start


def python(code, tmp_path, name='job'):
    return Run(name=name, arguments=(sys.executable, '-c', code), output=tmp_path / f'{name}.txt')


def test_progress_is_shown_in_short_and_all_output_is_kept(tmp_path, capsys):
    line = '11/22 mmengine - INFO - Iter(train) [ 40/600]  lr: 8e-4  eta: 0:09:11  loss: 2.0695'
    result = 'Iter(val) [25/25]    coco/bbox_mAP: 0.57  coco/bbox_mAP_50: 0.8630  time: 0.2'
    code = f'print("hello"); print({line!r}); print({result!r})'
    run_side_by_side([python(code, tmp_path)])
    shown = capsys.readouterr().out.splitlines()
    assert [' '.join(line.split()[1:]) for line in shown] == [
        'job train 40/600 loss 2.0695 left 0:09:11',
        'job val 25/25 box AP50 0.8630',
    ]
    assert (tmp_path / 'job.txt').read_text().startswith(f'hello\n{line}\n')


def test_commands_run_at_the_same_time_with_the_cores_shared(tmp_path, monkeypatch):
    monkeypatch.setattr('os.sched_getaffinity', lambda pid: set(range(6)))
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    # Each command waits for the other's file, so running one after the other would never end.
    code = (
        'import os, sys, time, pathlib\n'
        'print(os.environ["OMP_NUM_THREADS"])\n'
        'here = pathlib.Path({folder!r})\n'
        '(here / {mine!r}).touch()\n'
        'while not (here / {other!r}).exists(): time.sleep(0.01)\n'
    )
    folder = str(tmp_path)
    run_side_by_side(
        [
            python(code.format(folder=folder, mine='a', other='b'), tmp_path, 'first'),
            python(code.format(folder=folder, mine='b', other='a'), tmp_path, 'second'),
        ]
    )
    assert (tmp_path / 'first.txt').read_text() == '3\n'
    assert (tmp_path / 'second.txt').read_text() == '3\n'


def test_a_failing_command_stops_the_others_and_is_named_with_its_last_line(tmp_path):
    fails = 'import time; time.sleep(0.3); raise ValueError("no such thing")'
    marker = tmp_path / 'survived'
    runs_on = f'import time, pathlib; time.sleep(30); pathlib.Path({str(marker)!r}).touch()'
    started = time.monotonic()
    with pytest.raises(UserError, match='bad failed with exit code 1: ValueError: no such'):
        run_side_by_side([python(runs_on, tmp_path, 'good'), python(fails, tmp_path, 'bad')])
    assert time.monotonic() - started < 25
    assert not marker.exists()


def test_a_command_that_fails_last_is_reported_too(tmp_path):
    runs = [
        python('', tmp_path, 'good'),
        python('import time; time.sleep(0.5); exit(3)', tmp_path, 'bad'),
    ]
    with pytest.raises(UserError, match='bad failed with exit code 3: no output'):
        run_side_by_side(runs)


def run_for_ever(output):
    code = 'import os, time; print(os.getpid()); time.sleep(300)'
    exit_on_signals()
    run_side_by_side([Run('job', (sys.executable, '-c', code), output)])


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM], ids=['SIGINT', 'SIGTERM'])
def test_a_stopped_demo_leaves_no_command_running(tmp_path, number):
    output = tmp_path / 'job.txt'
    demo = start(run_for_ever, output)
    while not (output.exists() and output.read_text().endswith('\n')):
        assert demo.is_alive()
        time.sleep(0.05)
    os.kill(demo.pid, number)
    demo.join()
    assert demo.exitcode == 128 + number
    with pytest.raises(ProcessLookupError):
        os.kill(int(output.read_text()), 0)
