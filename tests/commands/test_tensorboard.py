"""Tests that tools/train.py logs for TensorBoard if the config says so."""

import json

import pytest
from mmengine.config import Config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nat_mm.errors import UserError
from nat_mm.training.tensorboard import BACKEND, apply_tensorboard


def test_training_logs_the_same_numbers_as_in_json(train, configs, tmp_path):
    options = ['tensorboard=True', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2']
    work_dir = ['--work-dir', str(tmp_path)]
    train([str(configs['segmentation']), *work_dir, '--cfg-options', *options])
    (folder,) = tmp_path.glob('*/vis_data')
    lines = [json.loads(line) for line in (folder / 'scalars.json').read_text().splitlines()]
    events = EventAccumulator(str(folder)).Reload()
    for key, count in (('loss', 2), ('mIoU', 1)):
        logged = [(line['step'], line[key]) for line in lines if key in line]
        assert len(logged) == count
        assert [step for step, _ in logged] == [event.step for event in events.Scalars(key)]
        values = [event.value for event in events.Scalars(key)]
        assert values == pytest.approx([value for _, value in logged])


def backends(**settings):
    """Returns the backend types of a config with these settings after the switch is applied."""
    config = Config(settings)
    apply_tensorboard(config)
    return [backend['type'] for backend in config.get('visualizer', {}).get('vis_backends', [])]


def test_switch():
    local = dict(type='LocalVisBackend')
    visualizer = dict(type='DetLocalVisualizer', vis_backends=[local])
    assert backends(visualizer=visualizer) == ['LocalVisBackend']
    assert backends(visualizer=visualizer, tensorboard=False) == ['LocalVisBackend']
    assert backends(visualizer=visualizer, tensorboard=True) == ['LocalVisBackend', BACKEND]
    assert backends(tensorboard=True) == ['LocalVisBackend', BACKEND]
    assert backends(visualizer=None, tensorboard=True) == ['LocalVisBackend', BACKEND]


def test_backend_that_the_config_has_already():
    visualizer = dict(type='Visualizer', vis_backends=[dict(type=BACKEND)])
    assert backends(visualizer=visualizer, tensorboard=True) == [BACKEND]


@pytest.mark.parametrize('tensorboard', [False, True])
def test_single_backend_without_a_list(tensorboard):
    local = dict(type='LocalVisBackend')
    config = Config(dict(visualizer=dict(type='Visualizer', vis_backends=local)))
    config.tensorboard = tensorboard
    apply_tensorboard(config)
    expected = [local, dict(type=BACKEND)] if tensorboard else local
    assert config.visualizer.vis_backends == expected


def test_backend_without_a_type():
    """What builds the visualizer reports it."""
    config = Config(dict(visualizer=dict(vis_backends=[dict(save_dir='logs')])))
    apply_tensorboard(config)
    assert config.visualizer.vis_backends == [dict(save_dir='logs')]


def test_value_that_is_no_switch(train, configs, tmp_path):
    arguments = [str(configs['segmentation']), '--work-dir', str(tmp_path), '--cfg-options']
    with pytest.raises(UserError, match="tensorboard must be True or False, got 'yes'"):
        train([*arguments, 'tensorboard=yes'])


def test_without_tensorboard(monkeypatch):
    monkeypatch.setattr('nat_mm.training.tensorboard.find_spec', lambda name: None)
    with pytest.raises(UserError, match=r"which is not installed: pip install 'nat_mm\[tens"):
        backends(tensorboard=True)
    assert backends() == []
