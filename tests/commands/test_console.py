"""Tests what training prints before its first iteration and where the rest is logged."""

import pytest

from nat_mm.demo import DatasetOptions, write_dataset
from tests.model_zoo import ROOT

FOR_THE_FILE = (
    'System environment:',
    'Config:\n',
    'Hooks will be executed in',
    'paramwise_options -- backbone.',
)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A few scenes of the demo dataset."""
    folder = tmp_path_factory.mktemp('scenes')
    options = DatasetOptions(train_scenes=2, val_scenes=1, image_size=64)
    write_dataset(folder, options, progress=False)
    return folder


@pytest.mark.parametrize('name', ['mask_rcnn_nat_demo', 'upernet_nat_demo_ddp'])
def test_first_iteration_is_within_forty_lines(train, data, name, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv('NAT_MM_DEMO_DATA', str(data))
    options = ['max_iters=1', 'val_interval=1']
    train(
        [
            *(str(ROOT / f'configs/demo/{name}.py'), '--work-dir', str(tmp_path)),
            *('--cfg-options', *(f'train_cfg.{each}' for each in options)),
            *('default_hooks.logger.interval=1', 'train_dataloader.batch_size=2'),
        ]
    )
    lines = capfd.readouterr().out.splitlines()
    first = next(index for index, line in enumerate(lines) if 'Iter(train)' in line)
    (log,) = tmp_path.glob('*/*.log')
    assert first < 40
    assert any(str(log) in line for line in lines[:first])
    assert not any(part in '\n'.join(lines) for part in FOR_THE_FILE)
    content = log.read_text()
    assert [part for part in FOR_THE_FILE if part not in content] == []
    # Results are still printed.
    result = 'segm_mAP_copypaste' if name.startswith('mask_rcnn') else 'per class results'
    assert any(result in line for line in lines[first:])
