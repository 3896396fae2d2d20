"""Tests that CompileBackbone compiles the backbone for training, and nothing else."""

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS

from nat_mm.backbones import NAT
from nat_mm.errors import UserError
from tests.training.tiny_run import train_tiny

COMPILED = dict(type='CompileBackbone', backend='aot_eager')


pytestmark = pytest.mark.usefixtures('forget_compiled_code')


@MODELS.register_module()
class TinyDetector(BaseModel):
    """A one-stage NAT with a linear head, whose images repeat the vectors of the data."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = NAT(
            embed_dim=32, depths=(1,), num_heads=(1,), kernel_size=3, out_indices=(0,)
        )
        self.head = torch.nn.Linear(32, 1)

    def forward(self, inputs, mode='tensor'):
        image = inputs[:, None, None, :].expand(-1, 3, 32, 4).repeat(1, 1, 1, 10)
        (features,) = self.backbone(image)
        output = self.head(features.mean((2, 3)))
        return {'loss_cls': (output - 1).square().mean()} if mode == 'loss' else [output]


@pytest.fixture
def calls(monkeypatch):
    """Lists (options of torch.compile, whether the backbone trains) of calls of compiled code."""
    calls, compile = [], torch.compile

    def record(function, **options):
        compiled = compile(function, **options)

        def call(*args):
            calls.append((options, function.__self__.training))
            return compiled(*args)

        return call

    monkeypatch.setattr(torch, 'compile', record)
    return calls


def train(work_dir, *hooks, **options):
    options = {'model': dict(type='TinyDetector'), 'validate': True, **options}
    return train_tiny(work_dir, custom_hooks=list(hooks), **options)


def test_same_weights_as_without(tmp_path, calls):
    expected = train(tmp_path / 'eager').model.state_dict()
    assert not calls
    model = train(tmp_path / 'compiled', COMPILED).model
    torch.testing.assert_close(model.state_dict(), expected)
    # Three iterations, with a validation of three batches after each.
    assert calls == [(dict(mode='default', dynamic=None, backend='aot_eager'), True)] * 3
    saved = torch.load(tmp_path / 'compiled' / 'iter_3.pth', weights_only=False)['state_dict']
    torch.testing.assert_close(dict(saved), dict(expected))


def test_eager_after_training(tmp_path, calls):
    model = train(tmp_path, COMPILED).model.train()
    trained = len(calls)
    model(torch.ones(1, 4))
    assert len(calls) == trained
    assert 'forward' not in vars(model.backbone)


def test_averaged_weights(tmp_path):
    """EMAHook copies the model and, for validation, swaps its weights with the copy's."""
    ema = dict(type='EMAHook', momentum=0.5)
    expected = train(tmp_path / 'eager', ema).model.state_dict()
    model = train(tmp_path / 'compiled', ema, COMPILED).model
    torch.testing.assert_close(model.state_dict(), expected)


def test_cpu_needs_no_compiler(tmp_path, calls, monkeypatch):
    monkeypatch.setenv('CXX', '/nonexistent')
    train(tmp_path, dict(type='CompileBackbone'))
    assert not calls


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(mode='fast'), "mode must be one of default, reduce-overhead, .*, got 'fast'"),
        (dict(mode=None), 'mode must be .*, got None'),
        (dict(dynamic='yes'), "dynamic must be True, False or None, got 'yes'"),
        (dict(backend='gcc'), "backend must be one of .*inductor.*, got 'gcc'"),
    ],
    ids=['mode', 'none', 'dynamic', 'backend'],
)
def test_wrong_options(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        HOOKS.build(dict(type='CompileBackbone', **options))


def test_model_without_backbone(tmp_path):
    with pytest.raises(UserError, match='needs a model with a backbone, which TinyModel lacks'):
        train(tmp_path, COMPILED, model=dict(type='TinyModel'))


@pytest.mark.parametrize('mode', ['reduce-overhead', 'max-autotune'])
def test_accumulation_with_cuda_graphs(tmp_path, mode):
    wrapper = dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=2)
    with pytest.raises(UserError, match=f"accumulate gradients with mode='{mode}'.*default"):
        train(tmp_path, {**COMPILED, 'mode': mode}, optim_wrapper=wrapper)


def test_accumulation(tmp_path, calls):
    wrapper = dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=3)
    expected = train(tmp_path / 'eager', optim_wrapper=wrapper).model.state_dict()
    found = train(tmp_path / 'compiled', COMPILED, optim_wrapper=wrapper).model.state_dict()
    torch.testing.assert_close(found, expected)
    assert len(calls) == 3
