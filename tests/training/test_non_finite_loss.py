"""Tests that a NaN or infinite loss ends training before it reaches a checkpoint."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS, OPTIM_WRAPPERS
from torch.amp import GradScaler

from nat_mm.checkpoints import read_checkpoint
from nat_mm.training.non_finite_loss import NonFiniteError, StopOnNonFiniteLoss
from tests.training.tiny_run import Calls, TinyModel, build_tiny

SCALED = dict(type='ScaledOnCPU', optimizer=dict(type='Adam', lr=0.1))
VALUES = {'nan': float('nan'), 'infinite': float('inf')}


@pytest.fixture
def spoil(monkeypatch):
    """Multiplies a loss by a value for some iterations, from a given one on."""

    def change(value, *, iteration=2, times=100, name='loss_bbox'):
        forward, done = TinyModel.forward, []

        def spoilt(self, inputs, mode='tensor'):
            result = forward(self, inputs, mode)
            if mode == 'loss':
                done.append(1)
                if iteration <= len(done) < iteration + times:
                    result[name] = result[name] * value
            return result

        monkeypatch.setattr(TinyModel, 'forward', spoilt)

    return change


@OPTIM_WRAPPERS.register_module()
class ScaledOnCPU(OptimWrapper):
    """Scales losses on the CPU, because AmpOptimWrapper insists on a GPU."""

    def __init__(self, **options):
        super().__init__(**options)
        self.loss_scaler = GradScaler('cpu')

    def backward(self, loss, **options):
        super().backward(self.loss_scaler.scale(loss), **options)

    def step(self, **options):
        self.loss_scaler.step(self.optimizer, **options)
        self.loss_scaler.update()


def train(work_dir, *, patience=10, **options):
    hook = dict(type='StopOnNonFiniteLoss', patience=patience)
    runner = build_tiny(work_dir, custom_hooks=[hook], **options)
    runner.train()
    return runner


def checkpoints(folder):
    return sorted(path.name for path in folder.glob('*.pth'))


@pytest.mark.parametrize('value', VALUES.values(), ids=VALUES)
def test_the_loss_is_named_and_the_checkpoint_before_is_kept(value, spoil, tmp_path):
    spoil(value)
    with pytest.raises(NonFiniteError, match=rf'^loss_bbox is {value} in iteration 2; no check'):
        train(tmp_path)
    assert checkpoints(tmp_path) == ['iter_1.pth']
    weights = read_checkpoint(str(tmp_path / 'iter_1.pth'))['state_dict'].values()
    assert all(weight.isfinite().all() for weight in weights)


def test_finite_losses_pass_and_metrics_may_be_nan(tmp_path):
    train(tmp_path)
    assert checkpoints(tmp_path) == ['iter_3.pth']


def test_weights_that_a_gradient_has_spoilt_are_not_saved(tmp_path, monkeypatch):
    """The loss is finite, as with a square root at zero."""
    runner = build_tiny(
        tmp_path, custom_hooks=[dict(type='StopOnNonFiniteLoss'), dict(type='Calls', priority=0)]
    )
    weight = runner.model.layer.weight

    def spoil():
        weight.data[0, 0] = float('nan')

    monkeypatch.setattr(Calls, 'functions', {('after', 2): spoil})
    with pytest.raises(NonFiniteError, match='weight layer.weight is NaN or infinite after iterat'):
        runner.train()
    assert checkpoints(tmp_path) == ['iter_1.pth']
    assert (tmp_path / 'last_checkpoint').read_text().endswith('iter_1.pth')


def test_infinite_buffers_are_saved(tmp_path):
    """Masks are an example of infinite buffers."""
    runner = build_tiny(tmp_path, custom_hooks=[dict(type='StopOnNonFiniteLoss')])
    runner.model.ballast = torch.full((3,), float('-inf'))
    runner.train()
    assert checkpoints(tmp_path) == ['iter_3.pth']


def test_scaled_loss_may_overflow_some_times(spoil, tmp_path):
    spoil(float('inf'), times=3)
    runner = train(tmp_path, patience=3, end=8, optim_wrapper=SCALED)
    assert runner.iter == 8
    assert all(weight.isfinite().all() for weight in runner.model.state_dict().values())


def test_scaled_loss_that_stays_infinite_ends_training(spoil, tmp_path):
    spoil(float('inf'))
    with pytest.raises(NonFiniteError, match='in iteration 5, as in the 3 before it'):
        train(tmp_path, patience=3, end=8, optim_wrapper=SCALED)


def test_users_can_name_the_hook():
    assert isinstance(HOOKS.build(dict(type='StopOnNonFiniteLoss')), StopOnNonFiniteLoss)
    with pytest.raises(ValueError, match='patience must be at least 0, got -1'):
        HOOKS.build(dict(type='StopOnNonFiniteLoss', patience=-1))
