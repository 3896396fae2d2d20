"""Tests that the scores of a test in several processes are written once."""

import json
import logging
from types import SimpleNamespace

import pytest
from mmengine.hooks import LoggerHook


def end_test_epoch(rank, monkeypatch, folder):
    """Ends a test as the runner does in the process of a rank."""
    monkeypatch.setattr('mmengine.dist.utils.get_rank', lambda group=None: rank)
    hook = LoggerHook()
    hook.json_log_path = 'scores.json'
    scores = {'mIoU': 50.0}, ''
    runner = SimpleNamespace(
        log_processor=SimpleNamespace(get_log_after_epoch=lambda *_, **__: scores),
        logger=logging.getLogger('test_scores_file'),
        log_dir=str(folder),
        test_dataloader=[],
    )
    hook.after_test_epoch(runner)


@pytest.mark.parametrize(('rank', 'names'), [(0, ['scores.json']), (1, [])])
def test_main_process_writes_them(rank, names, monkeypatch, tmp_path):
    end_test_epoch(rank, monkeypatch, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == names
    for name in names:
        assert json.loads((tmp_path / name).read_text()) == {'mIoU': 50.0}
