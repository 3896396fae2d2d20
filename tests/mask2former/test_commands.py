"""Tests that a small version of every shipped config trains, is tested and predicts."""

import json
import math
import pickle
import shutil

import cv2
import numpy as np
import pytest
from pycocotools import mask

from nat_mm.checkpoints import read_checkpoint
from nat_mm.errors import UserError
from tests.mask2former.small import small_config

METRICS = {
    'semantic': ['mIoU'],
    'instance': ['coco/bbox_mAP', 'coco/segm_mAP'],
    'panoptic': ['coco_panoptic/PQ', 'coco/bbox_mAP', 'coco/segm_mAP'],
    'cityscapes_panoptic': ['coco_panoptic/PQ'],
}
# The configured maximum, and both thing classes for each of the ten queries.
INSTANCES = {'instance': 5, 'panoptic': 20}
# An untrained model has low scores for every segment.
FIND_ALL = 'model.test_cfg.object_mask_thr=0.0', 'model.test_cfg.iou_thr=0.0'


def log(work_dir):
    """Returns the lines of the log of the run in a work directory."""
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_training(work_dir, task):
    lines = log(work_dir)
    losses = [line['loss'] for line in lines if 'loss' in line]
    assert len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert all(name in lines[-1] for name in METRICS[task])


def test_training(trained):
    task, work_dir = trained
    check_training(work_dir, task)
    checkpoint = read_checkpoint(str(work_dir / 'iter_2.pth'))
    states = checkpoint['optimizer']['state']
    assert len(states) == len(checkpoint['state_dict'])
    # Every parameter has received a gradient, even the backbone's first and the heads' last.
    assert all(state['exp_avg_sq'].sum() > 0 for state in states.values())


@pytest.mark.parametrize('task', ['semantic', 'panoptic'])
def test_training_in_mixed_precision(train, configs, task, tmp_path):
    train([str(configs[task]), '--amp', '--work-dir', str(tmp_path)])
    check_training(tmp_path, task)


def test_cityscapes(train, configs, tmp_path):
    """Cityscapes has its own dataset class, and the metric reads segment files by their names."""
    train([str(configs['cityscapes_panoptic']), '--work-dir', str(tmp_path)])
    check_training(tmp_path, 'cityscapes_panoptic')


def test_testing(test, configs, trained, tmp_path):
    task, work_dir = trained
    out = tmp_path / ('out' if task == 'semantic' else 'out.pkl')
    options = ['--show-dir', str(tmp_path / 'shown'), '--out', str(out)]
    arguments = [str(configs[task]), str(work_dir / 'iter_2.pth'), *options]
    test([*arguments, '--work-dir', str(tmp_path / 'work_dir')])
    (path,) = (tmp_path / 'work_dir').glob('*/*.json')
    measured = json.loads(path.read_text())
    # The last validation during training was on the same images.
    validated = log(work_dir)[-1]
    for name in METRICS[task]:
        assert measured[name] == pytest.approx(validated[name], abs=1e-3)
    shown = [path for path in (tmp_path / 'shown').rglob('*.*g') if path.is_file()]
    assert len(shown) == 3
    if task == 'semantic':
        assert cv2.imread(str(out / '00.png'), cv2.IMREAD_UNCHANGED).shape == (96, 128)
    else:
        assert len(pickle.loads(out.read_bytes())) == 3


@pytest.mark.parametrize('trained', ['semantic'], indirect=True)
def test_test_time_augmentation(test, configs, trained, tmp_path):
    task, work_dir = trained
    arguments = [str(configs[task]), str(work_dir / 'iter_2.pth'), '--tta']
    test([*arguments, '--work-dir', str(tmp_path)])
    (path,) = tmp_path.glob('*/*.json')
    assert 0 < json.loads(path.read_text())['mIoU'] < 100


def test_prediction(predict, configs, trained, data, tmp_path):
    task, work_dir = trained
    arguments = [str(configs[task]), str(work_dir / 'iter_2.pth'), str(data / 'images/validation')]
    options = ['--out-dir', str(tmp_path), '--score-threshold', '0', '--batch-size', '3']
    if task == 'panoptic':
        options += ['--cfg-options', *FIND_ALL]
    predict([*arguments, *options])
    assert cv2.imread(str(tmp_path / 'images' / '00.jpg')).shape == (96, 128, 3)
    if task != 'instance':
        picture = cv2.imread(str(tmp_path / 'results' / '00.png'), cv2.IMREAD_UNCHANGED)
    if task == 'semantic':
        assert picture.shape == (96, 128)
        return
    result = json.loads((tmp_path / 'results' / '00.json').read_text())
    assert len(result['instances']) == INSTANCES[task]
    for instance in result['instances']:
        assert instance['class_name'] == ('box', 'disc')[instance['label']]
        assert mask.decode(instance['mask']).shape == (96, 128)
    if task == 'panoptic':
        check_segments(picture[..., ::-1].astype(int), result['segments'])


def check_segments(picture, segments):
    numbers = picture[..., 0] + 256 * picture[..., 1] + 256**2 * picture[..., 2]
    found, areas = np.unique(numbers[numbers > 0], return_counts=True)
    assert len(found) > 0
    assert {segment['id']: segment['area'] for segment in segments} == dict(
        zip(found.tolist(), areas.tolist(), strict=True)
    )
    for segment in segments:
        assert segment['class_name'] == ('box', 'disc', 'background')[segment['label']]


def test_inferencer(configs, trained, data, tmp_path):
    task, work_dir = trained
    from mmdet.apis import DetInferencer
    from mmseg.apis import MMSegInferencer

    model = str(configs[task]), str(work_dir / 'iter_2.pth')
    picture = str(data / 'images/validation/00.jpg')
    if task == 'semantic':
        result = MMSegInferencer(*model, device='cpu')(picture, out_dir=str(tmp_path))
        assert result['predictions'].shape == (96, 128)
        assert (tmp_path / 'vis' / '00.jpg').exists()
        return
    inferencer = DetInferencer(*model, device='cpu', show_progress=False)
    result = inferencer(picture, out_dir=str(tmp_path), no_save_pred=False)
    assert len(result['predictions'][0]['masks']) == INSTANCES[task]
    assert (tmp_path / 'vis' / '00.jpg').exists()
    assert (tmp_path / 'preds' / '00_panoptic_seg.png').exists() == (task == 'panoptic')


@pytest.fixture
def mistake(train, data, tmp_path):
    """Trains on a copy of the data that a function has damaged and returns the message."""

    def run(damage):
        copy = tmp_path / 'data'
        shutil.copytree(data, copy)
        damage(copy / 'panoptic')
        config = tmp_path / 'config.py'
        small_config('panoptic', copy).dump(config)
        with pytest.raises(UserError) as raised:
            train([str(config), '--work-dir', str(tmp_path / 'work_dir')])
        return str(raised.value)

    return run


def test_missing_segments(mistake):
    message = mistake(lambda folder: (folder / 'training' / '00.png').unlink())
    assert 'images/training/00.jpg has no label: ' in message
    assert message.endswith('panoptic/training/00.png does not exist')


@pytest.mark.parametrize('part', ['training', 'validation'])
def test_instances_in_place_of_segments(mistake, part):
    def damage(folder):
        shutil.copy(folder.parent / 'coco' / f'{part}.json', folder)

    message = mistake(damage)
    assert f'panoptic/{part}.json is not COCO' in message
    assert 'has no file_name, segments_info' in message


def test_annotations_that_are_not_json(mistake):
    message = mistake(lambda folder: (folder / 'training.json').write_text('{'))
    assert 'panoptic/training.json is not JSON' in message
