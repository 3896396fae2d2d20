"""Runs the short form of ``make soak``: kills real processes and resumes their training runs."""

from tests.soak.kills import Soak


def test_killed_runs_go_on(configs, tmp_path):
    soak = Soak(configs['segmentation'], by_epoch=False, folder=tmp_path / 'soak', seed=1)
    result = soak.run(4)
    assert result.lost == []
    assert (result.kills, result.finished) == (4, 1)
