"""Tests mixed precision on a CPU."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import OPTIM_WRAPPERS as DET_OPTIM_WRAPPERS
from mmengine.runner import loops

from nat_mm.training import bf16_instructions

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason='tests what happens on a CPU')


@pytest.fixture
def model():
    torch.manual_seed(0)
    return torch.nn.Linear(4, 2)


def build(model, **settings):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = {'type': 'AutocastOptimWrapper', 'optimizer': optimizer, **settings}
    return DET_OPTIM_WRAPPERS.build(wrapper)


@without_gpu
def test_trains_in_bf16(model):
    wrapper = build(model, loss_scale='dynamic', clip_grad={'max_norm': 0.5})
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        output = model(torch.ones(3, 4))
    wrapper.update_params(output.float().square().sum())
    assert output.dtype == torch.bfloat16
    assert model.weight.dtype == torch.float32
    step = model.weight - before
    assert 0 < step.norm() <= 0.5 * 0.1 + 1e-6  # clipped gradient times learning rate


@without_gpu
def test_accumulates_gradients(model):
    wrapper = build(model, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    before = model.weight.detach().clone()
    for changed in (False, True):
        with wrapper.optim_context(model):
            loss = model(torch.ones(3, 4)).float().sum()
        wrapper.update_params(loss)
        assert torch.equal(model.weight, before) != changed


@without_gpu
def test_state_moves_between_cpu_and_gpu(model):
    wrapper = build(model)
    state = wrapper.state_dict()
    assert 'loss_scaler' not in state
    wrapper.load_state_dict({**state, 'loss_scaler': {'scale': 65536.0, '_growth_tracker': 3}})


@without_gpu
@pytest.mark.parametrize('dtype', ['float16', torch.float16], ids=str)
def test_fp16_is_refused(model, dtype):
    with pytest.raises(ValueError, match="dtype must be 'bfloat16'"):
        build(model, dtype=dtype)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('dtype', [None, 'bfloat16'], ids=str)
def test_on_a_gpu_it_is_the_ordinary_wrapper(model, dtype):
    wrapper = build(model.cuda(), dtype=dtype)
    with wrapper.optim_context(model):
        output = model(torch.ones(3, 4, device='cuda'))
    assert output.dtype == (torch.bfloat16 if dtype else torch.float16)
    assert wrapper.loss_scaler.is_enabled()
    assert 'loss_scaler' in wrapper.state_dict()


@pytest.fixture
def trial(monkeypatch):
    """Pretends that this CPU announces bf16; the trial ends with ``trial.returncode``."""
    result = SimpleNamespace(returncode=0, count=0)

    def run(*args, **kwargs):
        result.count += 1
        return result

    monkeypatch.setattr(bf16_instructions, '_announces_bf16', lambda: True)
    monkeypatch.setattr(bf16_instructions.subprocess, 'run', run)
    # Set first, so that monkeypatch removes it again afterwards.
    monkeypatch.setenv('ONEDNN_MAX_CPU_ISA', '')
    monkeypatch.delenv('ONEDNN_MAX_CPU_ISA')
    bf16_instructions.avoid_unusable_amx.cache_clear()
    yield result
    bf16_instructions.avoid_unusable_amx.cache_clear()


@without_gpu
def test_unusable_instructions_are_avoided(model, trial):
    trial.returncode = -signal.SIGILL
    build(model)
    build(model)
    assert os.environ['ONEDNN_MAX_CPU_ISA'] == 'AVX512_CORE_BF16'
    assert trial.count == 1


@without_gpu
def test_usable_instructions_are_kept(model, trial):
    build(model)
    assert 'ONEDNN_MAX_CPU_ISA' not in os.environ
    assert trial.count == 1


@without_gpu
def test_users_choice_of_instructions_is_kept(model, trial, monkeypatch):
    monkeypatch.setenv('ONEDNN_MAX_CPU_ISA', 'AVX2')
    build(model)
    assert os.environ['ONEDNN_MAX_CPU_ISA'] == 'AVX2'
    assert trial.count == 0


@without_gpu
@pytest.mark.parametrize('enabled', [True, False])
def test_instructions_are_tried_before_a_test_in_bf16(enabled, trial):
    with loops.autocast(enabled=enabled):
        output = torch.ones(2, 2) @ torch.ones(2, 2)
    assert trial.count == enabled
    assert output.dtype == (torch.bfloat16 if enabled else torch.float32)


def test_the_trial_itself_runs():
    result = subprocess.run([sys.executable, '-c', bf16_instructions._PROBE])
    assert result.returncode in (0, -signal.SIGILL)


@pytest.mark.skipif(
    not Path('/proc/cpuinfo').exists() or 'avx512f' not in Path('/proc/cpuinfo').read_text(),
    reason='needs a CPU with more than AVX2',
)
def test_onednn_reads_the_variable_when_it_is_first_used():
    code = """
import os, torch
os.environ['ONEDNN_MAX_CPU_ISA'] = 'AVX2'
with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
    torch.nn.functional.conv2d(torch.ones(1, 64, 56, 56), torch.ones(64, 64, 3, 3))
"""
    environment = {k: v for k, v in os.environ.items() if k != 'ONEDNN_MAX_CPU_ISA'}
    result = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True
    )
    assert 'isa:Intel AVX2' in result.stdout, result.stderr
