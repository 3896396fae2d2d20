"""mmengine's checkpoints load with weights_only; files with code and damaged files do not."""

import os
import pickle
import zipfile

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, Runner
from torch.utils.data import DataLoader


class Regression(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3, 1)

    def forward(self, inputs, mode='tensor'):
        return {'loss': self.linear(inputs).square().mean()}


def train(work_dir, epochs, name, *, resume=False):
    torch.manual_seed(0)
    runner = Runner(
        model=Regression(),
        work_dir=str(work_dir),
        train_dataloader=DataLoader(torch.randn(8, 3), batch_size=2, collate_fn=stack),
        train_cfg={'by_epoch': True, 'max_epochs': epochs},
        optim_wrapper={'optimizer': {'type': 'AdamW', 'lr': 0.01}},
        param_scheduler={'type': 'CosineAnnealingLR', 'T_max': 4, 'end': 4},
        custom_hooks=[{'type': 'EMAHook'}],
        default_scope='mmengine',
        experiment_name=name,
        resume=resume,
    )
    runner.train()
    return runner


def stack(samples):
    return {'inputs': torch.stack(samples)}


def test_resumed_training_equals_uninterrupted_training(tmp_path):
    train(tmp_path / 'parts', 2, 'compat-first')
    resumed = train(tmp_path / 'parts', 4, 'compat-second', resume=True)
    whole = train(tmp_path / 'whole', 4, 'compat-whole')

    assert resumed.iter == whole.iter == 16
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict())
    histories = [
        runner.message_hub.get_scalar('train/loss').data[0] for runner in (resumed, whole)
    ]
    assert len(histories[0]) == 16
    torch.testing.assert_close(*map(torch.from_numpy, histories))


def save_history(path):
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    torch.save({'state_dict': {'weight': torch.ones(2)}, 'history': history}, path)


def load(path):
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu')


@pytest.mark.parametrize('core', ['numpy.core', 'numpy._core'], ids=['numpy-1', 'numpy-2'])
def test_history_written_by_either_numpy_loads(tmp_path, core):
    path = tmp_path / 'history.pth'
    save_history(path)
    rewrite_pickle(path, lambda data: replace_any(data, [b'numpy._core', b'numpy.core'], core))
    assert load(path)['history'].mean() == 2


def rewrite_pickle(path, edit):
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in contents.items():
            archive.writestr(name, edit(data) if name.endswith('data.pkl') else data)


def replace_any(data, names, replacement):
    assert any(name in data for name in names)
    for name in names:
        data = data.replace(b'c' + name + b'.', b'c' + replacement.encode() + b'.')
    return data


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize(
    ('call', 'name'),
    [
        (lambda marker: Call(os.mkdir, str(marker)), 'posix.mkdir'),
        (lambda marker: Call(exec, f'import os; os.mkdir({str(marker)!r})'), 'exec'),
        (lambda marker: Call(getattr, HistoryBuffer, 'update'), 'builtins.getattr'),
        (lambda marker: Call(getattr, torch.Tensor, 'min'), 'builtins.getattr'),
    ],
    ids=['os', 'exec', 'getattr-other-method', 'getattr-other-class'],
)
def test_code_is_refused_and_does_not_run(tmp_path, call, name, zipped):
    path, marker = tmp_path / 'evil.pth', tmp_path / 'marker'
    content = {'state_dict': {}, 'payload': call(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=f'evil.pth is refused.*{name}') as caught:
        load(path)
    assert '\n' not in str(caught.value)
    assert not marker.exists()


def test_call_of_an_allowed_name_is_refused(tmp_path):
    class Statistic:
        def __reduce__(self):
            return HistoryBuffer.min, (HistoryBuffer([1.0], [1]),)

    path = tmp_path / 'call.pth'
    torch.save({'value': Statistic()}, path)
    check_damaged(path)


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('share', [0, 0.0001, 0.5, 0.999])
def test_truncated_checkpoint_is_named(tmp_path, share, zipped):
    path = tmp_path / 'cut.pth'
    content = {'state_dict': {'weight': torch.randn(100, 100)}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    check_damaged(path)


@pytest.mark.parametrize(
    'content',
    [b'not a checkpoint at all\n', b'<html>404</html>', pickle.dumps({'state_dict': {}})],
    ids=['text', 'html', 'plain-pickle'],
)
def test_other_file_is_named(tmp_path, content):
    path = tmp_path / 'other.pth'
    path.write_bytes(content)
    check_damaged(path)


def check_damaged(path):
    with pytest.raises(ValueError, match=f'{path.name}.*is truncated, damaged, or') as caught:
        load(path)
    assert '\n' not in str(caught.value)


def test_missing_file_keeps_its_own_error(tmp_path):
    with pytest.raises(FileNotFoundError, match='absent.pth'):
        load(tmp_path / 'absent.pth')
