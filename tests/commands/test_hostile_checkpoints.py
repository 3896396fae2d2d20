"""Feeds over 300 corrupt checkpoints to all readers: no crash, no traceback, one line each."""

import contextlib
import copy
import functools
import io
import traceback
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import ModuleType

import pytest
import torch
from mmengine.runner import CheckpointLoader

from nat_mm.backbones import NAT
from nat_mm.checkpoints import convert_checkpoint, load_pretrained
from nat_mm.commands.running import run_command
from nat_mm.config.reading import load_config
from nat_mm.inference import load_model
from tests.commands.mutations import OF_CLASSES, OF_TRAINING, damaged, unexpected
from tests.compat import regression
from tests.loading import forget_visualizers, load_command
from tests.processes import run_together

SMALL = """
_base_ = '{base}'
model = dict(
    backbone=dict(embed_dim=8, depths=(1,), num_heads=(1,), out_indices=(0,)),
    decode_head=dict(
        _delete_=True, type='FCNHead', in_channels=8, in_index=0, channels=8, num_convs=1,
        num_classes=3, norm_cfg=dict(type='BN')),
    auxiliary_head=None)
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2))
"""
WORKERS = 2
QUICK = ('init_cfg', 'convert')
ALL = (*QUICK, 'test', 'predict', 'train --resume')
OF_MODELS = (*QUICK, 'predict')
"""Readers for damaged files that mmengine reads, other damaged files, and unexpected values."""


@pytest.fixture(scope='module')
def small(train, configs, tmp_path_factory) -> tuple[Path, Path]:
    """The config and a checkpoint of a small segmentor trained for two iterations."""
    folder = tmp_path_factory.mktemp('small')
    config = folder / 'small.py'
    config.write_text(SMALL.format(base=configs['segmentation']))
    train([str(config), '--work-dir', str(folder)])
    return config, folder / 'iter_2.pth'


@pytest.fixture(scope='module')
def sources(small, small_data, tmp_path_factory) -> dict[str, Path]:
    """The sources of the corrupt checkpoints, and the files that they are read with."""
    config, checkpoint = small
    folder = tmp_path_factory.mktemp('sources')
    convert_checkpoint(str(checkpoint), str(folder / 'weights.safetensors'))
    regression.train(folder, 2, 'hostile')
    return {
        'config': config,
        'checkpoint': checkpoint,
        'safetensors': folder / 'weights.safetensors',
        'regression': folder / 'epoch_2.pth',
        'picture': small_data / 'images/validation/00.jpg',
    }


def test_wrong_checkpoints(sources, tmp_path):
    folders = [tmp_path / f'{part}' for part in range(WORKERS)]
    for folder in folders:
        folder.mkdir()
    try:
        results = run_together(read_all, [(sources, *each) for each in enumerate(folders)])
    except BrokenProcessPool:
        # Files are removed after reading, so the ones left are suspects.
        left = [path for folder in folders for path in folder.glob('*.*')]
        pytest.fail(f'a process died while it read one of {left}')
    assert sum(count for count, _ in results) >= 300
    assert [complaint for _, complaints in results for complaint in complaints] == []


def read_all(sources: dict[str, Path], part: int, folder: Path) -> tuple[int, list[str]]:
    """Passes every WORKERS-th corrupt file to its readers.

    Returns:
        The number of files, and what went wrong.
    """
    torch.set_num_threads(1)
    readers = make_readers(sources, folder / 'out')
    files = [
        *((*each, ALL) for each in damaged(sources['checkpoint'], sources['safetensors'])),
        *((*each, OF_MODELS) for each in unexpected(sources['checkpoint'], OF_CLASSES)),
        *((*each, ('resume',)) for each in unexpected(sources['regression'], OF_TRAINING)),
    ]
    files = files[part::WORKERS]
    complaints = []
    for name, write, names in files:
        path = folder / name
        write(path)
        # The commands take seconds for what mmengine can read, such as a changed weight.
        names = QUICK if names is ALL and readers['mmengine'](str(path)) == 'read' else names
        outcomes = {reader: readers[reader](str(path)) for reader in names}
        complaints += [
            f'{reader} of {name}: {outcome}'
            for reader, outcome in outcomes.items()
            if outcome not in ('read', 'refused')
        ]
        path.unlink()
    return len(files), complaints


def make_readers(sources: dict[str, Path], out: Path) -> dict[str, Callable[[str], str]]:
    """Makes readers of checkpoints that return ``read``, ``refused``, or what went wrong."""
    config, picture = str(sources['config']), str(sources['picture'])
    parsed = functools.cache(load_config)

    def load_config_once(path, *, overrides=None, work_dir=None):
        loaded = copy.deepcopy(parsed(path))
        loaded.merge_from_dict(overrides or {})
        loaded.work_dir = str(out)
        return loaded

    load_model.load_config = load_config_once
    train, test, predict, convert = map(
        load_command, ('train', 'test', 'predict', 'convert_checkpoint')
    )
    train.load_config = test.load_config = load_config_once
    backbone = NAT(embed_dim=8, depths=(1,), num_heads=(1,), out_indices=(0,), kernel_size=3)

    return {
        'mmengine': lambda path: library(CheckpointLoader.load_checkpoint, path, 'cpu'),
        'init_cfg': lambda path: library(load_pretrained, backbone, path),
        'resume': lambda path: library(
            regression.train, out, 2, path, load_from=path, resume=True, log_level='ERROR'
        ),
        'convert': lambda path: command(convert, path, f'{out}.pth', '--force', '--to', 'backbone'),
        'test': lambda path: command(test, config, path),
        'predict': lambda path: command(predict, config, path, picture, '--out-dir', str(out)),
        'train --resume': lambda path: command(train, config, '--resume', path),
    }


def library(read: Callable, *arguments, **options) -> str:
    """Calls a function that must work or raise a ValueError with a one-line message."""
    try:
        read(*arguments, **options)
    except ValueError as error:
        return 'refused' if '\n' not in str(error) else str(error)
    except Exception:
        return traceback.format_exc()
    return 'read'


def command(tool: ModuleType, *arguments: str) -> str:
    """Runs a command that must work or exit with code 2 after a one-line message."""
    errors = io.StringIO()
    forget_visualizers()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            run_command(lambda: tool.main(arguments))
    except SystemExit as end:
        lines = [line for line in errors.getvalue().splitlines() if line.startswith('error: ')]
        return 'refused' if end.code == 2 and len(lines) == 1 else errors.getvalue()
    except BaseException:
        return traceback.format_exc()
    return 'read'
