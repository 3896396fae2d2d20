"""Tests that resuming refuses what does not continue the run, and deletes only its own files."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.logging import HistoryBuffer
from torch.utils.data import DataLoader

from nat_mm.checkpoints import read_checkpoint
from tests.compat.regression import resume, stack, train


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """The path of a checkpoint after 2 epochs of 4 iterations."""
    work_dir = tmp_path_factory.mktemp('trained')
    train(work_dir, 2, 'resuming')
    return work_dir / 'epoch_2.pth'


def changed(checkpoint, *path, to):
    """Returns the checkpoint's content with another value at a path of keys."""
    content = read_checkpoint(str(checkpoint))
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return content


LR, BETAS = (('optimizer', 'param_groups', 0, name) for name in ('lr', 'betas'))
MOMENT, STEP = ('optimizer', 'state', 0, 'exp_avg'), ('param_schedulers', 0, 'last_step')
INFO = ('message_hub', 'runtime_info')
SCALARS, HISTORY = ('message_hub', 'log_scalars'), HistoryBuffer([1], [1])
MEANINGLESS = {
    'iter is text': (('meta', 'iter'), 'x', 'iter must be a whole number'),
    'iter is negative': (('meta', 'iter'), -1, 'iter must be a whole number from 0'),
    'iter is endless': (('meta', 'iter'), 10**18, 'iter must be a whole number from 0'),
    'iter is a bool': (('meta', 'iter'), True, 'iter must be a whole number'),
    'iter is an array': (('meta', 'iter'), np.zeros(3), 'iter must be .*, got a ndarray'),
    'epoch is a fraction': (('meta', 'epoch'), 1.5, 'epoch must be a whole number from 0 to 3'),
    'epoch is too late': (('meta', 'epoch'), 4, 'epoch must be a whole number from 0 to 3, got 4'),
    'seed is text': (('meta', 'seed'), 'x', ''),
    'config is a number': (('meta', 'config'), 3, ''),
    'meta is a list': (('meta',), [], ''),
    'weights are numbers': (('state_dict',), {'linear.weight': 3}, ''),
    'weights are a list': (('state_dict',), [1], ''),
    'optimizer is a list': (('optimizer',), [], ''),
    'optimizer is empty': (('optimizer',), {}, ''),
    'learning rate is text': (LR, 'x', "lr of the optimizer must be like 0.01, got 'x'"),
    'learning rate is NaN': (LR, float('nan'), 'lr of the optimizer must be like 0.01, got nan'),
    'betas are text': (BETAS, ('x', 'y'), 'betas of the optimizer must be like'),
    'moment is of another shape': (MOMENT, torch.ones(5), r'number or of shape \[1, 3\], got .*5'),
    'moment is text': (MOMENT, 'x', "exp_avg' of the optimizer must be a number or of shape"),
    'state is a list': (MOMENT[:-1], [1], ''),
    'schedulers are a number': (STEP[:1], 3, ''),
    'scheduler is a list': (STEP[:2], [1], ''),
    'step of the scheduler is text': (STEP, 'x', 'last_step of param_schedulers must be like'),
    'rates of the scheduler are text': (
        (*STEP[:2], 'base_values'), ['x'], 'base_values of param_schedulers must be like',
    ),
    'method of the scheduler': ((*STEP[:2], 'step'), 3, "param_schedulers have no 'step'"),
    'messages are a list': (('message_hub',), [], ''),
    'messages are missing': (('message_hub',), {}, ''),
    'name of a message is a number': ((*SCALARS, 3), HISTORY, 'names in message_hub must be text'),
    'histories are a list': (SCALARS, [1], ''),
    'average of weights is text': (('ema_state_dict',), 'x', ''),
    'best checkpoint is a number': ((*INFO, 'best_ckpt'), 3, 'best_ckpt in message_hub must be'),
    'best score is an array': ((*INFO, 'best_score'), np.zeros(3), 'best_score in .*ndarray'),
    'best score is text': ((*INFO, 'best_score'), 'x', 'best_score in message_hub must be'),
    'outdated files are a number': ((*INFO, 'outdated_checkpoints'), 3, 'outdated_check.* must be'),
    'interrupted epoch is text': ((*INFO, 'interrupted_epoch'), 'x', 'interrupted_epoch in mess'),
    'batches are text': (
        (*INFO, 'interrupted_epoch'), {'batches': 'x'}, 'interrupted_epoch in message_hub must be',
    ),
    'kept checkpoints are text': ((*INFO, 'keep_ckpt_ids'), ['../x'], 'keep_ckpt_ids in message'),
}  # fmt: skip


@pytest.mark.parametrize(('path', 'value', 'message'), MEANINGLESS.values(), ids=MEANINGLESS)
def test_what_continues_no_training_run_is_refused(checkpoint, tmp_path, path, value, message):
    torch.save(changed(checkpoint, *path, to=value), tmp_path / 'wrong.pth')
    message = rf'cannot resume from .*wrong\.pth: .*{message}'
    with pytest.raises(ValueError, match=message) as caught:
        resume(tmp_path / 'wrong.pth', tmp_path)
    assert '\n' not in str(caught.value)


class Rising(BaseMetric):
    """A score that gets better every time; ``kind`` converts it."""

    count = 0

    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        Rising.count += 1
        return {'score': self.kind(Rising.count)}


def validated(work_dir, epochs, name, kind=int, **options):
    return train(
        work_dir, epochs, name,
        val_dataloader=DataLoader(torch.randn(2, 3), collate_fn=stack),
        val_cfg={}, val_evaluator=Evaluator(Rising(kind)),
        default_hooks={'checkpoint': {
            'type': 'CheckpointHook', 'interval': 1, 'save_best': 'score', 'rule': 'greater',
        }},
        **options,
    )  # fmt: skip


@pytest.mark.parametrize('place', ['folder', 'file', 'folder/..', 'work_dir/epoch_1.pth'])
def test_resuming_deletes_nothing_but_its_own_best_checkpoint(tmp_path, place):
    work_dir = tmp_path / 'work_dir'
    validated(work_dir, 2, 'best')
    best = work_dir / 'best_score_epoch_2.pth'
    assert best.exists()
    (tmp_path / 'folder').mkdir()
    for path in ('folder/precious', 'file'):
        (tmp_path / path).write_text('precious')
    content = read_checkpoint(str(work_dir / 'epoch_2.pth'))
    info = content['message_hub']['runtime_info']
    info['best_ckpt'] = str(tmp_path / place)
    info['outdated_checkpoints'] = [str(tmp_path / place), '../file', 'epoch_1.pth', '..']
    torch.save(content, tmp_path / 'evil.pth')
    before = {path for path in tmp_path.rglob('*') if path.is_file()}
    validated(work_dir, 3, place, load_from=str(tmp_path / 'evil.pth'), resume=True)
    assert (work_dir / 'best_score_epoch_3.pth').exists()
    assert before - set(tmp_path.rglob('*')) == set()


# mmseg's IoUMetric returns NumPy's numbers, torchmetrics' metrics return tensors.
@pytest.mark.parametrize('kind', [float, np.float32, np.array, torch.tensor])
def test_kinds_of_best_scores(tmp_path, kind):
    validated(tmp_path, 2, f'{kind.__name__} first', kind)
    last = str(tmp_path / 'epoch_2.pth')
    validated(tmp_path, 3, f'{kind.__name__} then', kind, load_from=last, resume=True)
    assert (tmp_path / 'best_score_epoch_3.pth').exists()


def test_best_checkpoint_of_a_work_dir_that_was_moved(tmp_path):
    validated(tmp_path / 'old', 2, 'old')
    (tmp_path / 'old').rename(tmp_path / 'new')
    last = tmp_path / 'new' / 'epoch_2.pth'
    validated(tmp_path / 'new', 3, 'new', load_from=str(last), resume=True)
    assert [path.name for path in tmp_path.rglob('best_*')] == ['best_score_epoch_3.pth']
