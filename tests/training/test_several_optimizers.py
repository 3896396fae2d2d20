"""Tests training runs whose parts have optimizers of their own, as in a GAN."""

import os
import signal

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from torch.amp import GradScaler

from nat_mm.errors import UserError
from nat_mm.training.non_finite_loss import NonFiniteError
from nat_mm.training.resume import find_last_checkpoint
from nat_mm.training.stopping import stop_on_signals
from tests.training.tiny_run import Calls, build_tiny, train_tiny


@MODELS.register_module()
class TinyPair(BaseModel):
    """A backbone and a head, each trained by its own optimizer."""

    def __init__(self, offset=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = torch.nn.Linear(4, 4)
        self.head = torch.nn.Linear(4, 1)
        self.offset = offset

    def forward(self, inputs, mode='tensor'):
        return [self.head(self.backbone(inputs))]

    def train_step(self, data, optim_wrapper):
        features = self.backbone(self.data_preprocessor(data, True)['inputs'])
        outputs = {'backbone': features, 'head': self.head(features.detach())}
        losses = {}
        for name, output in outputs.items():
            losses[f'loss_{name}'] = (output - 1).square().mean() + self.offset
            optim_wrapper[name].update_params(losses[f'loss_{name}'])
        return losses


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TinyPairOptimizers:
    """Builds the optimizers; ``counts`` has the number of iterations of a step of each."""

    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        self.counts = optim_wrapper_cfg['counts']
        self.scaled = optim_wrapper_cfg.get('scaled', False)

    def __call__(self, model):
        wrappers = {}
        for name, count in self.counts.items():
            optimizer = torch.optim.SGD(getattr(model, name).parameters(), lr=0.1)
            wrappers[name] = OptimWrapper(optimizer, accumulative_counts=count)
            if self.scaled:
                wrappers[name].loss_scaler = GradScaler('cpu')
        return OptimWrapperDict(**wrappers)


def pair(*, backbone=1, head=1, **options):
    counts = dict(backbone=backbone, head=head)
    wrapper = dict(constructor='TinyPairOptimizers', counts=counts, **options)
    return dict(model=dict(type='TinyPair'), optim_wrapper=wrapper)


def test_stopping_waits_for_the_steps_of_all_and_resumes(tmp_path, monkeypatch, capsys):
    options = pair(head=2) | dict(end=4)
    expected = train_tiny(tmp_path / 'whole', **options).model.state_dict()
    stopping = {('before', 0): lambda: os.kill(os.getpid(), signal.SIGTERM)}
    monkeypatch.setattr(Calls, 'functions', stopping)
    runner = build_tiny(tmp_path / 'run', **options)
    with pytest.raises(SystemExit) as raised, stop_on_signals(runner):
        runner.train()
    assert raised.value.code == 143
    assert 'stopped by SIGTERM after iteration 2' in capsys.readouterr().err
    monkeypatch.setattr(Calls, 'functions', {})
    source, _ = find_last_checkpoint(str(tmp_path / 'run'))
    resumed = train_tiny(tmp_path / 'run', load_from=source, resume=True, **options)
    torch.testing.assert_close(resumed.model.state_dict(), expected, rtol=0, atol=0)


@pytest.mark.parametrize(('scaled', 'iteration'), [(False, 1), (True, 3)])
def test_infinite_losses(tmp_path, scaled, iteration):
    hook = dict(type='StopOnNonFiniteLoss', patience=2)
    options = pair(scaled=scaled)
    options['model']['offset'] = float('inf')
    with pytest.raises(NonFiniteError, match=f'is inf in iteration {iteration}'):
        train_tiny(tmp_path, custom_hooks=[hook], end=5, **options)


def test_cuda_graphs_refuse_accumulation_by_one_of_them(tmp_path):
    hook = dict(type='CompileBackbone', mode='reduce-overhead', backend='aot_eager')
    with pytest.raises(UserError, match='cannot accumulate gradients'):
        train_tiny(tmp_path, custom_hooks=[hook], **pair(head=2))
