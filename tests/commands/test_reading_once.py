"""Tests that commands read a checkpoint once, though both they and mmengine use it."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from nat_mm.commands import web_demo


@pytest.fixture
def reads(monkeypatch) -> Counter[str]:
    """How often each file is read, by path."""
    counts = Counter()
    load = torch.load

    def count(file, *arguments, **options):
        counts[str(file)] += 1
        return load(file, *arguments, **options)

    monkeypatch.setattr(torch, 'load', count)
    # onedl-mmengine has its own function.
    name = 'mmengine.runner.checkpoint._safe_torch_load'
    monkeypatch.setattr(name, count, raising=False)
    return counts


def test_test(test, configs, trained, reads, tmp_path):
    checkpoint = str(trained['segmentation'])
    test([str(configs['segmentation']), checkpoint, '--work-dir', str(tmp_path)])
    assert reads == {checkpoint: 1}


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_predict(predict, configs, trained, small_data, reads, tmp_path, task):
    checkpoint, image = str(trained[task]), str(small_data / 'images/validation/00.jpg')
    predict([str(configs[task]), checkpoint, image, '--out-dir', str(tmp_path)])
    assert reads == {checkpoint: 1}


@pytest.mark.parametrize('start', ['load_from', 'resume'])
def test_train(train, configs, trained, reads, tmp_path, start):
    checkpoint = str(trained['segmentation'])
    options = {
        'load_from': ['--cfg-options', f'load_from={checkpoint}', 'train_cfg.max_iters=1'],
        'resume': ['--resume', checkpoint, '--cfg-options', 'train_cfg.max_iters=7'],
    }
    config = str(configs['segmentation'])
    train([config, '--work-dir', str(tmp_path), *options[start], 'train_cfg.val_interval=9'])
    assert reads == {checkpoint: 1}


def test_pretrained_backbone(train, configs, trained, reads, tmp_path):
    checkpoint = str(trained['segmentation'])
    config = tmp_path / 'pretrained.py'
    config.write_text(
        f"_base_ = '{configs['segmentation']}'\n"
        f"init_cfg = dict(_delete_=True, type='Pretrained', checkpoint='{checkpoint}')\n"
        'model = dict(backbone=dict(init_cfg=init_cfg))\n'
        'train_cfg = dict(max_iters=1, val_interval=9)\n'
    )
    train([str(config), '--work-dir', str(tmp_path)])
    assert reads == {checkpoint: 1}


def test_models_of_the_demo(configs, trained, reads, tmp_path, monkeypatch):
    work_dir = str(Path(trained['segmentation']).parent)
    monkeypatch.setattr(web_demo, 'CONFIGS', {work_dir: configs['segmentation']})
    web_demo.load_models(web_demo.parse_arguments(['--device', 'cpu']))
    assert reads == {str(trained['segmentation']): 1}
