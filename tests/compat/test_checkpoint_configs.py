"""Tests that the config inside a checkpoint is not executed."""

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import FlexibleRunner, Runner

from nat_mm.checkpoints import read_checkpoint
from tests.compat.regression import resume, train

RUNNERS = [Runner, FlexibleRunner]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """The path of a checkpoint after 2 epochs of 4 iterations."""
    work_dir = tmp_path_factory.mktemp('trained')
    train(work_dir, 2, 'checkpoint-configs')
    return work_dir / 'epoch_2.pth'


def program(marker):
    # mmengine would not run a function of an imported module, but it would run this.
    return f'__import__("os").mkdir({str(marker)!r})\nmodel = dict()\n'


@pytest.mark.parametrize('runner_type', RUNNERS, ids=lambda kind: kind.__name__)
def test_config_in_a_checkpoint_is_not_run(checkpoint, tmp_path, runner_type):
    content = read_checkpoint(str(checkpoint))
    for key in ('config', 'cfg'):
        content['meta'][key] = program(tmp_path / 'ran')
    content['message_hub']['runtime_info']['cfg'] = program(tmp_path / 'ran')
    torch.save(content, tmp_path / 'evil.pth')
    execute = Config.fromstring
    runner = resume(tmp_path / 'evil.pth', tmp_path, runner_type=runner_type)
    assert runner.iter == 12
    assert not (tmp_path / 'ran').exists()
    assert Config.fromstring is execute
    assert Config.fromstring('x = 1 + 1', '.py').x == 2


@pytest.mark.parametrize('runner_type', RUNNERS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(('gpus', 'fits'), [('[0]', True), ('[0, 1]', False)])
def test_number_of_gpus_is_compared_as_before(checkpoint, tmp_path, runner_type, gpus, fits):
    content = read_checkpoint(str(checkpoint))
    content['meta']['config'] = f'x = dict(\n    y=1)\ngpu_ids = {gpus}\nz = 2\n'
    torch.save(content, tmp_path / 'gpus.pth')
    if fits:
        assert resume(tmp_path / 'gpus.pth', tmp_path, runner_type=runner_type).iter == 12
    else:
        with pytest.raises(ValueError, match=r'cannot resume from .*gpus\.pth.*auto_scale_lr'):
            resume(tmp_path / 'gpus.pth', tmp_path, runner_type=runner_type)


@pytest.mark.parametrize('place', ['meta', 'message_hub'])
def test_inferencer_does_not_run_the_config_in_a_checkpoint(tmp_path, place):
    apis = pytest.importorskip('mmdet.apis', reason="the inferencer is mmdetection's")
    content = {'state_dict': {}, 'meta': {}}
    if place == 'meta':
        content['meta']['cfg'] = program(tmp_path / 'ran')
    else:
        content['message_hub'] = {'runtime_info': {'cfg': program(tmp_path / 'ran')}}
    torch.save(content, tmp_path / 'evil.pth')
    with pytest.raises(ValueError, match='is a program, which is not run. Give the config file'):
        apis.DetInferencer(weights=str(tmp_path / 'evil.pth'), device='cpu')
    assert not (tmp_path / 'ran').exists()
