"""Tests a config that does not give the type of its dataset or evaluator."""

import pytest

from nat_mm.errors import UserError


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (
            'train_dataloader = dict(dataset=dict(_delete_=True, ann_file="coco/training.json"))',
            'the train dataset has no type, such as CocoDataset',
        ),
        (
            'val_evaluator = dict(_delete_=True, metric="bbox")',
            'val_evaluator has no type, such as CocoMetric',
        ),
    ],
    ids=['dataset', 'evaluator'],
)
def test_data_without_a_type(settings, message, train, configs, small_data, tmp_path, monkeypatch):
    monkeypatch.chdir(small_data)
    config = tmp_path / 'untyped.py'
    config.write_text(f"_base_ = '{configs['detection']}'\n{settings}\n")
    with pytest.raises(UserError) as raised:
        train([str(config), '--work-dir', str(tmp_path / 'work_dir')])
    assert str(raised.value).endswith(message)
