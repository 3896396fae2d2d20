"""Tests tools/convert_checkpoint.py, and mmdet 2.x and mmseg 0.x checkpoints in tools/test.py."""

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from nat_mm.checkpoints import read_checkpoint
from nat_mm.commands.running import run_command
from tests.loading import load_command

CLASSES = {'detection': ('box', 'disc'), 'segmentation': ('background', 'box', 'disc')}


@pytest.fixture(scope='session')
def convert() -> Callable[..., None]:
    """``main`` of tools/convert_checkpoint.py."""
    return load_command('convert_checkpoint').main


@pytest.fixture
def refused(convert, capsys):
    """Runs a conversion that must be refused and returns the message."""

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as raised:
            run_command(lambda: convert([str(argument) for argument in arguments]))
        assert raised.value.code == 2
        captured = capsys.readouterr()
        assert captured.out == ''
        assert captured.err.startswith('error: ')
        assert captured.err.count('\n') == 1
        return captured.err

    return run


@pytest.fixture(scope='session')
def checkpoints(configs, tmp_path_factory) -> dict[str, Path]:
    """A checkpoint of each task as mmcv 1.4 saves it when mmdet 2.19 or mmseg 0.20 trains.

    The last layers predict class 1 of the detector and class 2 of the segmentor everywhere.
    """
    return {task: save_old_checkpoint(configs, task, tmp_path_factory) for task in CLASSES}


def save_old_checkpoint(configs, task, tmp_path_factory):
    config = Config.fromfile(configs[task])
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    weights = OrderedDict(model.state_dict())
    if task == 'detection':
        weights['roi_head.bbox_head.fc_cls.bias'][1] = 100.0
    else:
        weights['decode_head.conv_seg.bias'][2] = 100.0
    meta = {
        'env_info': 'sys.platform: linux\nPyTorch: 1.11.0',
        'config': "model = dict(type='MaskRCNN')\n",
        'seed': None,
        'exp_name': f'{task}.py',
        'epoch': 36,
        'iter': 263880,
        'hook_msgs': {'best_score': np.float64(0.5), 'last_ckpt': 'work_dirs/epoch_36.pth'},
        'mmcv_version': '1.4.8',
        'time': 'Sat Apr  9 12:00:00 2022',
        'CLASSES': CLASSES[task],
        'fp16': {'loss_scaler': {'cur_scale': 65536.0, 'scale_factor': 2.0}},
    }
    if task == 'segmentation':
        meta['PALETTE'] = [[index, 2 * index, 3 * index] for index in range(len(CLASSES[task]))]
    parameters = list(model.parameters())
    optimizer = {
        'state': {
            index: {'step': 10, 'exp_avg': torch.zeros_like(parameter)}
            for index, parameter in enumerate(parameters)
        },
        'param_groups': [{'lr': 1e-4, 'params': list(range(len(parameters)))}],
    }
    path = tmp_path_factory.mktemp('published') / f'{task}.pth'
    torch.save({'meta': meta, 'state_dict': weights, 'optimizer': optimizer}, path)
    return path


def predictions(test, config, checkpoint, work_dir):
    """Returns predictions for the test images: scores, boxes and labels, or label images."""
    out = work_dir / ('out.pkl' if 'detection' in config.name else 'out')
    test([str(config), str(checkpoint), '--work-dir', str(work_dir), '--out', str(out)])
    if out.is_dir():
        return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(out.glob('*.png'))]
    return [
        each['pred_instances'][name].numpy()
        for each in pickle.loads(out.read_bytes())
        for name in ('scores', 'bboxes', 'labels')
    ]


@pytest.mark.parametrize('task', CLASSES)
def test_published_checkpoint_predicts_the_same_converted_or_not(
    test, convert, configs, checkpoints, tmp_path, capsys, task
):
    converted = tmp_path / 'converted.safetensors'
    convert([str(checkpoints[task]), str(converted)])
    assert '(model layout, ' in capsys.readouterr().out
    found = []
    for name, path in (('published', checkpoints[task]), ('converted', converted)):
        found.append(predictions(test, configs[task], path, tmp_path / name))
        captured = capsys.readouterr()
        assert 'warning: checkpoint' not in captured.err
        assert 'do not match exactly' not in captured.err + captured.out
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    # In label images in ADE20K's format, 0 is no class.
    labels = found[0][2::3] if task == 'detection' else [each - 1 for each in found[0]]
    assert len(labels) == 3
    assert all((each == CLASSES[task].index('disc')).all() for each in labels)


@pytest.mark.parametrize('task', CLASSES)
def test_published_checkpoint_in_predict(predict, configs, small_data, checkpoints, tmp_path, task):
    pictures = small_data / 'images' / 'validation'
    predict(
        [
            *(str(configs[task]), str(checkpoints[task]), str(pictures)),
            *('--out-dir', str(tmp_path / 'out')),
        ]
    )
    assert len(list((tmp_path / 'out' / 'images').iterdir())) == 3


def test_published_backbone_for_another_training(convert, checkpoints, tmp_path):
    convert([str(checkpoints['detection']), str(tmp_path / 'backbone.pth'), '--to', 'backbone'])
    backbone = torch.load(tmp_path / 'backbone.pth')
    weights = read_checkpoint(str(checkpoints['detection']))['state_dict']
    assert backbone.keys() == {
        key.removeprefix('backbone.') for key in weights if key.startswith('backbone.')
    }


@pytest.mark.parametrize('task', CLASSES)
def test_round_trip_of_a_published_checkpoint(convert, checkpoints, tmp_path, task):
    paths = [tmp_path / name for name in ('model.pth', 'back.pth')]
    convert([str(checkpoints[task]), str(paths[0])])
    convert([str(paths[0]), str(paths[1]), '--to', 'authors'])
    before, back = read_checkpoint(str(checkpoints[task])), torch.load(paths[1])
    assert back['meta']['CLASSES'] == CLASSES[task]
    assert back['state_dict'].keys() == before['state_dict'].keys()
    for key, tensor in before['state_dict'].items():
        assert torch.equal(back['state_dict'][key], tensor), key


def test_existing_target(convert, refused, checkpoints, tmp_path):
    target = tmp_path / 'out.pth'
    target.write_text('precious')
    assert 'exists already; --force overwrites it' in refused(checkpoints['detection'], target)
    assert target.read_text() == 'precious'
    convert([str(checkpoints['detection']), str(target), '--force'])
    assert 'state_dict' in torch.load(target)


def test_target_with_the_longest_name_there_can_be(convert, checkpoints, tmp_path):
    target = tmp_path / f'{"x" * 251}.pth'
    convert([str(checkpoints['detection']), str(target)])
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_checkpoint_that_is_its_own_target(refused, checkpoints):
    checkpoint = checkpoints['detection']
    assert 'name another file' in refused(checkpoint, checkpoint, '--force')


def test_folder_of_the_target_is_missing(refused, checkpoints, tmp_path):
    assert 'no such folder' in refused(checkpoints['detection'], tmp_path / 'gone' / 'out.pth')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'is truncated, damaged'),
        (b'<html>404</html>', 'is truncated, damaged'),
        (pickle.dumps({'a': 1}), 'is truncated, damaged'),
        (None, 'can not be found'),
    ],
    ids=['empty', 'web page', 'pickle', 'missing'],
)
def test_source_that_is_no_checkpoint(refused, tmp_path, content, message):
    source = tmp_path / 'source.pth'
    if content is not None:
        source.write_bytes(content)
    assert message in refused(source, tmp_path / 'out.pth')
    assert not (tmp_path / 'out.pth').exists()


def test_hostile_source(refused, tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'attacked'),)

    torch.save({'state_dict': {'backbone.x': torch.ones(1)}, 'meta': Attack()}, tmp_path / 'x.pth')
    assert 'x.pth is refused' in refused(tmp_path / 'x.pth', tmp_path / 'out.pth')
    assert os.listdir(tmp_path) == ['x.pth']


def test_other_architecture(refused, tmp_path):
    torch.save({'layer1.0.conv1.weight': torch.ones(1)}, tmp_path / 'resnet.pth')
    message = refused(tmp_path / 'resnet.pth', tmp_path / 'out.pth')
    assert 'not a checkpoint of a NAT, DiNAT or DiNAT_s' in message


def test_names_that_are_not_utf8(refused, tmp_path):
    """Memory-mapped files of PyTorch, and safetensors, need one that is."""
    good, bad = tmp_path / 'good.pth', tmp_path / 'caf\udce9.pth'
    for path in (good, bad):
        torch.save({'weight': torch.ones(2)}, path)
    assert 'checkpoint' in refused(bad, tmp_path / 'new.pth')
    assert 'the name must be valid UTF-8' in refused(good, bad, '--force')
