"""Tests that what fails in the first steps of a run names its setting, and only that."""

import itertools

import pytest
import torch
from mmengine.config import Config

from nat_mm.config.reading import config_mistakes
from nat_mm.errors import UserError
from nat_mm.training.checkpoint_hook import BestMetricCheck
from nat_mm.training.first_pass import first_pass_mistakes
from tests.training.tiny_run import Calls, TinyModel, build_tiny

FORWARD = """
def forward(self, inputs, mode='tensor'):
    if mode == failing and next(calls) == number:
        None.get
    return forward_before(self, inputs, mode)
"""


@pytest.fixture
def break_model(monkeypatch):
    """Makes the n-th call of the model in a mode fail as if its code were mmseg's."""

    def change(mode, number):
        scope = {'__name__': 'mmseg.models', 'failing': mode, 'number': number}
        scope |= {'calls': itertools.count(1), 'forward_before': TinyModel.forward}
        exec(FORWARD, scope)
        monkeypatch.setattr(TinyModel, 'forward', scope['forward'])

    return change


def train(work_dir, **options):
    """Trains; returns the number of completed iterations."""
    done = []
    with config_mistakes(Config()):
        runner = build_tiny(work_dir, **options)
        runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
        runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    runner.register_hook(BestMetricCheck())
    with first_pass_mistakes(runner, on_start=lambda: done.append(1)):
        runner.train()
    return len(done)


def test_a_run_without_mistakes(tmp_path):
    assert train(tmp_path, validate=True) == 3


@pytest.mark.parametrize('mode', ['loss', 'predict'], ids=['training', 'validation'])
def test_the_first_pass_through_the_model(mode, break_model, tmp_path):
    break_model(mode, 1)
    expected = "^None: model: 'NoneType' object has no attribute 'get'"
    with pytest.raises(UserError, match=expected):
        train(tmp_path, validate=True)


@pytest.mark.parametrize('mode', ['loss', 'predict'], ids=['training', 'validation'])
def test_later_passes_keep_their_traceback(mode, break_model, tmp_path):
    break_model(mode, 2)
    with pytest.raises(AttributeError):
        train(tmp_path, validate=True)


@pytest.mark.parametrize(
    ('overrides', 'text'),
    [
        (
            {'optim_wrapper': {'type': 'OptimWrapper', 'clip_grad': {'max_norm': 'abc'}}},
            "optim_wrapper: could not convert string to float: 'abc'",
        ),
        (
            {'param_scheduler.1.gamma': 'abc'},
            "param_scheduler.1.gamma is 'abc': unsupported operand",
        ),
        (
            {'default_hooks.checkpoint.interval': None},
            "default_hooks.checkpoint.interval is None: '>' not supported",
        ),
        (
            {'default_hooks.checkpoint.save_best': 'mIoU', 'default_hooks.checkpoint.rule': 'less'},
            "default_hooks.checkpoint.save_best is 'mIoU', but val_evaluator gives 'score': write",
        ),
    ],
    ids=['optimizer', 'schedule', 'hook', 'metric'],
)
def test_what_runs_besides_the_model(overrides, text, tmp_path):
    with pytest.raises(UserError) as raised:
        train(tmp_path, validate=True, overrides=overrides)
    assert str(raised.value).startswith(f'None: {text}')


def test_faults_of_a_users_hook_keep_their_traceback(tmp_path, monkeypatch):
    monkeypatch.setitem(Calls.functions, ('after', 1), lambda: len(3))
    with pytest.raises(TypeError, match="'int' has no len"):
        train(tmp_path)


def test_faults_of_a_users_model_keep_their_traceback(tmp_path, monkeypatch):
    monkeypatch.setattr(TinyModel, 'forward', lambda *_, **__: torch.empty(-1))
    with pytest.raises(RuntimeError, match='negative dimension'):
        train(tmp_path)
